-- The recipes of the latest plans with every default filled in, as JSON.
SELECT recipe, resolved_recipe
FROM latest_plans
ORDER BY recipe;
