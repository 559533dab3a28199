-- Drafts of prompts that are missing. Reads relation `wanted_drafts(angle_id, spec_id, sample_index)`.
CREATE OR REPLACE TEMP TABLE pending_units AS
WITH slots AS (
    SELECT
        angle_id, spec_id, sample_index,
        content_id([angle_id, $drafting_id, sample_index::VARCHAR]) AS draft_id
    FROM wanted_drafts
),
-- Raw rows: the latest attempt counts, and one that is no error settles the draft.
tried AS (
    SELECT
        draft_id,
        max(attempt) AS attempt,
        max_by(run_id, attempt) AS run_id,
        bool_or(status <> 'error') AS is_settled
    FROM drafts_raw
    WHERE drafting_id = $drafting_id
    GROUP BY draft_id
),
missing AS (
    SELECT s.angle_id, s.spec_id, s.sample_index, coalesce(t.attempt + 1, 0) AS attempt
    FROM slots AS s
    LEFT JOIN tried AS t USING (draft_id)
    WHERE t.draft_id IS NULL
        OR (NOT t.is_settled AND t.attempt < $retries)
        OR (NOT t.is_settled AND t.attempt + 1 < $error_attempts AND t.run_id <> $run_id)
)
SELECT
    spec_id AS block_key, angle_id,
    list(sample_index ORDER BY sample_index) AS sample_indices,
    list(attempt ORDER BY sample_index) AS attempts
FROM missing
GROUP BY spec_id, angle_id;

SELECT block_key, angle_id, sample_indices, attempts
FROM pending_units
ORDER BY block_key, angle_id;
