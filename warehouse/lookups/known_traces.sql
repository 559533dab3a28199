-- Ids of the traces that are stored.
SELECT DISTINCT completion_id
FROM completions_raw
WHERE spec_id IS NULL;
