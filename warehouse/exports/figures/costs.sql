-- Cost of the refreshes of the recipes, by stage: rows, tokens, seconds of its engines, GPU-hours.
SELECT
    f.stage,
    count(DISTINCT f.run_id) AS num_runs,
    sum(f.num_rows)::BIGINT AS num_rows,
    sum(f.prompt_tokens)::BIGINT AS prompt_tokens,
    sum(f.cached_tokens)::BIGINT AS cached_tokens,
    sum(f.output_tokens)::BIGINT AS output_tokens,
    round(sum(f.seconds), 1) AS seconds,
    round(sum(f.seconds * coalesce(f.num_gpus, 0)) / 3600, 4) AS gpu_hours
FROM stage_figures AS f
SEMI JOIN latest_plans AS l USING (recipe)
WHERE f.flow IN ('refresh', 'align') AND NOT f.is_training AND f.seconds > 0
GROUP BY f.stage
ORDER BY min(f.started_at), f.stage;
