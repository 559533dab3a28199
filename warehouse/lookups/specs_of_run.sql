-- The specs of a run: those that it wanted completions under, and those of its evaluation.
WITH this AS (
    SELECT spec_ids, figures
    FROM runs
    WHERE run_id = $run_id
),
wanted AS (
    SELECT unnest(spec_ids) AS spec_id FROM this
    UNION
    SELECT unnest(from_json(figures->'$.evaluation.specs[*].spec_id', '["VARCHAR"]')) FROM this
)
SELECT s.*
FROM specs AS s
SEMI JOIN wanted USING (spec_id)
ORDER BY s.spec_id;
