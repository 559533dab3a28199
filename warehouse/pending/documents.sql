-- Documents that are missing. Reads relation `wanted_documents(subject_id, spec_id)`.
CREATE OR REPLACE TEMP TABLE pending_units AS
WITH slots AS (
    SELECT
        w.subject_id, w.spec_id, s.sample_index,
        content_id([w.subject_id, $documenting_id, s.sample_index::VARCHAR]) AS document_id
    FROM wanted_documents AS w, (SELECT unnest(range($samples)) AS sample_index) AS s
),
-- Raw rows: the latest attempt counts, and one that is no error settles the document.
tried AS (
    SELECT
        document_id,
        max(attempt) AS attempt,
        max_by(run_id, attempt) AS run_id,
        bool_or(status <> 'error') AS is_settled
    FROM documents_raw
    WHERE documenting_id = $documenting_id
    GROUP BY document_id
),
missing AS (
    SELECT s.subject_id, s.spec_id, s.sample_index, coalesce(t.attempt + 1, 0) AS attempt
    FROM slots AS s
    LEFT JOIN tried AS t USING (document_id)
    WHERE t.document_id IS NULL
        OR (NOT t.is_settled AND t.attempt < $retries)
        OR (NOT t.is_settled AND t.attempt + 1 < $error_attempts AND t.run_id <> $run_id)
)
SELECT
    spec_id AS block_key, subject_id,
    list(sample_index ORDER BY sample_index) AS sample_indices,
    list(attempt ORDER BY sample_index) AS attempts
FROM missing
GROUP BY spec_id, subject_id;

SELECT block_key, subject_id, sample_indices, attempts
FROM pending_units
ORDER BY block_key, subject_id;
