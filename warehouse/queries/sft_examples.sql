-- The examples that the latest run of each recipe froze, which SFT trains on.
WITH sets AS (
    SELECT set_id
    FROM runs_all
    WHERE set_id IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY recipe ORDER BY started_at DESC) = 1
)
SELECT
    e.completion_id,
    e.prompt_id,
    spec_key(e.categories) AS category,
    e.ideal_response,
    e.score,
    e.cited,
    e.prompt,
    e.completion
FROM examples AS e
SEMI JOIN sets USING (set_id)
WHERE e.status = 'chosen'
ORDER BY e.completion_id;
