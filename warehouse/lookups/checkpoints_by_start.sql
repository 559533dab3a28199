-- The checkpoints whose ids start so.
SELECT *
FROM checkpoints
WHERE starts_with(checkpoint_id, $start)
ORDER BY checkpoint_id;
