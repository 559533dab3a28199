-- What became of one completion in the sets of examples, the latest set first.
SELECT set_id, status, reason
FROM examples_raw
WHERE completion_id = $completion_id
ORDER BY created_at DESC, set_id;
