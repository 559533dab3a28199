-- Id of the evaluation that was chosen, else of the latest.
SELECT run_id
FROM current_run;
