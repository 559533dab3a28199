-- A set of examples by status and reason.
SELECT status, reason, count(*) AS num_rows, round(avg(score), 2) AS mean_score
FROM examples_all
WHERE set_id = $set_id
GROUP BY ALL
ORDER BY status, reason;
