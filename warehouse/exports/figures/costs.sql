-- Tokens, seconds and GPU-hours of the refreshes of the recipes, by stage; of a run that was killed, the
-- tokens that its rows tell.
SELECT
    coalesce(u.stage, u.table_name) AS stage,
    count(DISTINCT u.run_id) AS num_runs,
    sum(u.num_rows)::BIGINT AS num_rows,
    sum(u.prompt_tokens)::BIGINT AS prompt_tokens,
    sum(u.cached_tokens)::BIGINT AS cached_tokens,
    sum(u.output_tokens)::BIGINT AS output_tokens,
    round(sum(u.seconds), 1) AS seconds,
    round(sum(u.seconds * u.num_gpus) / 3600, 4) AS gpu_hours,
    count(DISTINCT u.run_id) FILTER (u.seconds IS NULL) AS num_untimed
FROM usage AS u
SEMI JOIN latest_plans AS l USING (recipe)
WHERE u.table_name IN ('prompts', 'completions', 'judgements')
GROUP BY ALL
HAVING sum(u.num_rows) > 0
ORDER BY min(u.started_at), stage;
