-- The latest completed calibration of each recipe whose judge was the judge that the recipe has now.
SELECT r.recipe, arg_max(r.run_id, r.started_at) AS run_id
FROM runs AS r
JOIN latest_plans AS l
    ON l.recipe = r.recipe
    AND judge_settings(l.resolved_recipe) IS NOT DISTINCT FROM judge_settings(r.resolved_recipe)
WHERE r.flow = 'calibrate' AND r.status = 'completed'
GROUP BY r.recipe;
