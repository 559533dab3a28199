-- Rows of each stage of a run, and their number by status.
SELECT stage, num_rows, statuses::VARCHAR AS statuses
FROM stage_figures
WHERE run_id = $run_id AND NOT is_training
ORDER BY started_at, stage;
