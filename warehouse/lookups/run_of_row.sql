-- The run that made a row.
SELECT run_id, flow, recipe, status, started_at, git_commit
FROM runs_all
WHERE run_id = $run_id;
