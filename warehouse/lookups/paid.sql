-- Rows, tokens, seconds and GPU-seconds of a stage in all completed refreshes of a recipe.
SELECT
    coalesce(sum(num_rows), 0)::BIGINT AS num_rows,
    coalesce(sum(prompt_tokens), 0)::BIGINT AS prompt_tokens,
    coalesce(sum(cached_tokens), 0)::BIGINT AS cached_tokens,
    coalesce(sum(output_tokens), 0)::BIGINT AS output_tokens,
    coalesce(sum(seconds), 0)::DOUBLE AS seconds,
    coalesce(sum(seconds * num_gpus), 0)::DOUBLE AS gpu_seconds
FROM stage_figures
WHERE recipe = $recipe
    AND flow = 'refresh'
    AND status = 'completed'
    AND stage = $stage;
