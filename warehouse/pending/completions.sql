-- Prompts that lack samples of the generator. Reads relation `wanted(prompt_id, spec_id)`.
CREATE OR REPLACE TEMP TABLE pending_units AS
WITH slots AS (
    SELECT
        w.prompt_id, w.spec_id, s.sample_index,
        content_id([w.prompt_id, w.spec_id, $generation_id, s.sample_index::VARCHAR])
            AS completion_id
    FROM wanted AS w
    SEMI JOIN prompts USING (prompt_id),
        (SELECT unnest(range($samples)) AS sample_index) AS s
),
-- Raw rows: the latest attempt counts, and one that is no error settles the sample.
tried AS (
    SELECT
        completion_id,
        max(attempt) AS attempt,
        max_by(run_id, attempt) AS run_id,
        bool_or(status <> 'error') AS is_settled
    FROM completions_raw
    WHERE generation_id = $generation_id
    GROUP BY completion_id
),
missing AS (
    SELECT s.prompt_id, s.spec_id, s.sample_index, coalesce(t.attempt + 1, 0) AS attempt
    FROM slots AS s
    LEFT JOIN tried AS t USING (completion_id)
    WHERE t.completion_id IS NULL
        OR (NOT t.is_settled AND t.attempt < $retries)
        OR (NOT t.is_settled AND t.attempt + 1 < $error_attempts AND t.run_id <> $run_id)
)
SELECT
    spec_id AS block_key, prompt_id, spec_id,
    list(sample_index ORDER BY sample_index) AS sample_indices,
    list(attempt ORDER BY sample_index) AS attempts
FROM missing
GROUP BY prompt_id, spec_id;

SELECT u.block_key, u.prompt_id, u.spec_id, p.messages, u.sample_indices, u.attempts
FROM pending_units AS u
JOIN prompts AS p USING (prompt_id)
ORDER BY u.block_key, u.prompt_id;
