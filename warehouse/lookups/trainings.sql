-- The completed trainings of a recipe, the latest first: their recipes and their checkpoints.
SELECT resolved_recipe, (figures->'checkpoints')::VARCHAR[] AS checkpoints
FROM runs
WHERE recipe = $recipe
    AND flow = 'train'
    AND status = 'completed'
ORDER BY started_at DESC;
