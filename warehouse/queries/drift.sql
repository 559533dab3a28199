-- What each refresh made of the completions that it judged anew: how much it accepted, how far apart
-- the judge's scores of one completion lay, and whether it is held.
WITH judged AS (
    SELECT
        j.run_id, j.completion_id,
        min(j.score) AS lowest,
        max(j.score) - min(j.score) AS spread,
        count(j.score) AS num_read
    FROM judgements_all AS j
    GROUP BY ALL
)
SELECT
    r.recipe,
    r.run_id,
    r.started_at,
    count(*) AS num_judged,
    round(avg((j.lowest >= r.threshold AND j.num_read >= r.num_judgements)::INT), 4) AS acceptance,
    round(avg(j.spread) FILTER (j.num_read > 1), 4) AS spread,
    any_value(h.alarm) AS alarm
FROM judged AS j
JOIN runs AS r USING (run_id)
LEFT JOIN held AS h USING (run_id)
WHERE r.flow = 'refresh'
GROUP BY r.recipe, r.run_id, r.started_at
ORDER BY r.started_at;
