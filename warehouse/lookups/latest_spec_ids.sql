-- The specs that the latest refresh of a recipe wanted.
SELECT spec_ids
FROM runs
WHERE recipe = $recipe
    AND flow = 'refresh'
    AND (generation_id IS NOT NULL OR len(traces) > 0)
ORDER BY started_at DESC
LIMIT 1;
