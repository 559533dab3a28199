-- The checkpoints that learned one completion, the latest first.
SELECT DISTINCT c.checkpoint_id, c.stage, c.status, c.created_at, e.set_id
FROM checkpoints_all AS c
JOIN examples_all AS e USING (set_id)
WHERE e.completion_id = $completion_id AND e.status = 'chosen'
ORDER BY c.created_at DESC;
