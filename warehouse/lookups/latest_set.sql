-- The set of examples that the latest refresh of a recipe froze.
SELECT set_id
FROM runs
WHERE recipe = $recipe
    AND set_id IS NOT NULL
ORDER BY started_at DESC
LIMIT 1;
