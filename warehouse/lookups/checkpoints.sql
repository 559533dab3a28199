-- The checkpoints of these ids.
SELECT *
FROM checkpoints
WHERE list_contains($ids, checkpoint_id);
