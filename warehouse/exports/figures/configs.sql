-- Rows of each configuration of this export, as its files have them: rows, different prompts,
-- languages.
SELECT config, count(*) AS num_rows, count(DISTINCT prompt_id) AS num_prompts
FROM exported
GROUP BY config
ORDER BY list_position(['sft', 'rl_prompts', 'preference', 'rejected', 'traces'], config);
