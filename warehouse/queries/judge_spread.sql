-- Spread of one judge's scores of the same completion, and how often they straddle the threshold: of
-- its score as a whole and, if it scores several criteria, of each.
SELECT
    judge,
    criterion,
    spread,
    count(*) AS num_completions,
    round(avg(min_score), 2) AS mean_min_score,
    count(*) FILTER (is_split) AS num_split_by_threshold
FROM judge_spreads
GROUP BY judge, criterion, spread
ORDER BY judge, criterion NULLS FIRST, spread;
