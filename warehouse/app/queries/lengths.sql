-- Chosen completions by the length of their reasoning, in at most forty steps, and their lowest score.
WITH steps AS (
    SELECT greatest(1, ceil(quantile_cont(num_reasoning_tokens, 0.99) / 40)) AS step
    FROM chosen_rows
)
SELECT
    -- The longest hundredth shares the last step.
    (least(floor(num_reasoning_tokens / step), 39) * step)::BIGINT AS reasoning_tokens,
    round(min_score) AS lowest_score,
    count(*) AS num_completions
FROM chosen_rows, steps
WHERE min_score IS NOT NULL AND num_reasoning_tokens IS NOT NULL
GROUP BY ALL
ORDER BY ALL;
