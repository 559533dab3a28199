-- The last runs, the latest first.
SELECT started_at, flow, recipe, status, seconds, run_id, error
FROM runs
ORDER BY started_at DESC
LIMIT $count;
