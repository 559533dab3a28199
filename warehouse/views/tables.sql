-- The plan of the latest run of each recipe, a row for each spec: it tells which rows are current.
CREATE VIEW plans AS
WITH latest AS (
    SELECT *
    FROM runs_all
    WHERE generation_id IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY recipe ORDER BY started_at DESC) = 1
)
SELECT
    recipe, run_id, generation_id, judging_id, num_samples, num_judgements, threshold, set_id,
    unnest(spec_ids) AS spec_id
FROM latest;

-- Completions that the latest run of some recipe wanted. Without any plan, as in a warehouse that
-- was written by hand, all completions are current.
CREATE VIEW completions AS
SELECT *
FROM completions_all AS c
WHERE EXISTS (
        SELECT 1
        FROM plans AS p
        WHERE p.generation_id = c.generation_id
          AND p.spec_id = c.spec_id
          AND c.sample_index < p.num_samples
    )
   OR NOT EXISTS (SELECT 1 FROM runs_all WHERE generation_id IS NOT NULL);

-- Judgements that the latest run of some recipe wanted. Of two judgements of one sample, which
-- differ in the metadata that the judge was shown, the later one counts.
CREATE VIEW judgements AS
SELECT *
FROM judgements_all AS j
WHERE EXISTS (
        SELECT 1
        FROM plans AS p
        WHERE p.judging_id = j.judging_id
          AND p.spec_id = j.spec_id
          AND j.sample_index < p.num_judgements
    )
   OR NOT EXISTS (SELECT 1 FROM runs_all WHERE generation_id IS NOT NULL)
QUALIFY row_number() OVER (
    PARTITION BY completion_id, judging_id, sample_index ORDER BY created_at DESC
) = 1;

-- Rollouts of each step of a training as it was last done, without steps beyond its end.
CREATE VIEW rollouts AS
SELECT r.*
FROM rollouts_all AS r
LEFT JOIN checkpoints_all AS c USING (checkpoint_id)
WHERE c.checkpoint_id IS NULL OR r.step < c.num_steps
QUALIFY r.attempt = max(r.attempt) OVER (PARTITION BY r.checkpoint_id, r.step);
