-- Why completions are unjudged: the status and reason of the judgements that have no score.
SELECT
    j.status,
    j.reason,
    count(*) AS num_judgements,
    count(DISTINCT completion_id) AS num_completions,
    min(completion_id) AS example
FROM verdicts AS v
JOIN judgements AS j USING (completion_id)
WHERE v.verdict = 'unjudged' AND j.score IS NULL
GROUP BY ALL
ORDER BY num_judgements DESC, j.status, j.reason;
