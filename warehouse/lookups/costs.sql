-- Cost of an evaluation, stage by stage, and of the refreshes and trainings before it that made the
-- models and data of its recipe. An arm of an ablation with sources of its own has a recipe named
-- after both.
WITH this AS (
    SELECT *
    FROM runs
    SEMI JOIN current_run USING (run_id)
),
paid AS (
    SELECT f.*
    FROM stage_figures AS f
    JOIN runs AS r USING (run_id)
    JOIN this AS t
        ON r.run_id = t.run_id
        OR (
            r.started_at <= t.started_at
            AND (r.recipe = t.recipe OR starts_with(r.recipe, t.recipe || '+'))
            AND json_type(r.figures, '$.evaluation') IS NULL
        )
    WHERE f.seconds > 0
),
summed AS (
    SELECT
        flow, stage,
        min(started_at) AS first_at,
        count(*) AS num_runs,
        coalesce(sum(num_rows), 0) AS num_rows,
        coalesce(sum(prompt_tokens), 0) AS prompt_tokens,
        coalesce(sum(cached_tokens), 0) AS cached_tokens,
        coalesce(sum(output_tokens), 0) AS output_tokens,
        sum(seconds) AS seconds,
        sum(seconds * coalesce(num_gpus, 0)) / 3600 AS gpu_hours
    FROM paid
    GROUP BY flow, stage
)
SELECT
    flow, stage,
    num_runs,
    nullif(num_rows, 0)::BIGINT AS rows,
    nullif(output_tokens, 0)::BIGINT AS output_tokens,
    round(seconds, 2) AS seconds,
    round(nullif(output_tokens, 0) / seconds, 1) AS tokens_per_second,
    round(cached_tokens / nullif(prompt_tokens, 0), 4) AS cache_hit_rate,
    round(gpu_hours, 4) AS gpu_hours
FROM summed
ORDER BY first_at, flow, stage;
