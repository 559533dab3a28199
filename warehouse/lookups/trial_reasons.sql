-- Samples of a trial that cannot be used, by their reasons.
SELECT coalesce(reason, status) AS reason, count(*) AS num_samples
FROM completions_all
WHERE status <> 'ok'
GROUP BY ALL
ORDER BY num_samples DESC, reason;
