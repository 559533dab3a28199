-- The last runs, the latest first.
SELECT
    started_at, flow, recipe, status, seconds, run_id, error,
    json_extract_string(resolved_recipe, '$.student.model') AS student
FROM runs
ORDER BY started_at DESC
LIMIT $count;
