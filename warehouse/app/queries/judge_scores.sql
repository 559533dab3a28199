-- How many judgements of the chosen completions gave each score, by judge; one that completions share
-- counts once.
SELECT model AS judge, floor(score * 2) / 2 AS score, count(DISTINCT judgement_id) AS num_judgements
FROM votes
WHERE score IS NOT NULL
GROUP BY ALL
ORDER BY ALL;
