-- The whole fine-tuned checkpoints of a recipe that learned another set of examples, the latest first.
SELECT *
FROM checkpoints
WHERE recipe = $recipe
    AND stage = 'sft'
    AND status = 'completed'
    AND set_id <> $set_id
ORDER BY created_at DESC, checkpoint_id;
