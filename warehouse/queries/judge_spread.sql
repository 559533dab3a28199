-- Spread of one judge's scores of the same completion, and how often they straddle the threshold.
WITH rows AS (
    SELECT
        completion_id, num_parsed, min_score, threshold,
        list_max(scores) - list_min(scores) AS spread,
        list_max(scores) >= threshold AND min_score < threshold AS is_split
    FROM verdicts
    WHERE num_parsed >= 2
)
SELECT
    spread,
    count(*) AS num_completions,
    round(avg(min_score), 2) AS mean_min_score,
    count(*) FILTER (is_split) AS num_split_by_threshold
FROM rows
GROUP BY spread
ORDER BY spread;
