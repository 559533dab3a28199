-- The record of the evaluation that was chosen.
SELECT *
FROM runs
SEMI JOIN current_run USING (run_id);
