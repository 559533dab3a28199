-- How many chosen completions have each lowest score, by verdict.
SELECT floor(min_score * 2) / 2 AS lowest_score, verdict, count(*) AS num_completions
FROM chosen_rows
WHERE min_score IS NOT NULL
GROUP BY ALL
ORDER BY ALL;
