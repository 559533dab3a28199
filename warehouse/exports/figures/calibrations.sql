-- The latest completed calibration of each recipe.
SELECT r.recipe, arg_max(r.run_id, r.started_at) AS run_id
FROM runs AS r
SEMI JOIN latest_plans AS l USING (recipe)
WHERE r.flow = 'calibrate' AND r.status = 'completed'
GROUP BY r.recipe;
