-- Ids of all evaluations, the latest first.
SELECT run_id
FROM evaluation_runs
ORDER BY started_at DESC, run_id;
