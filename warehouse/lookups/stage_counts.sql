-- Counts of the stages and trainings of a run.
SELECT stage, num_rows, num_steps, prompt_tokens, output_tokens, seconds, statuses
FROM stage_figures
WHERE run_id = $run_id
ORDER BY stage;
