-- The recipe of a run with every default filled in, as JSON.
SELECT resolved_recipe
FROM runs
WHERE run_id = $run_id;
