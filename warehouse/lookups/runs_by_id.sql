-- The runs whose ids start so, the latest first.
SELECT *
FROM runs
WHERE starts_with(run_id, $run_id)
ORDER BY started_at DESC;
