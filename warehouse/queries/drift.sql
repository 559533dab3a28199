-- Acceptance and spread of scores in every refresh that judged, with its drift alarm. `spread` is
-- the mean distance between a completion's lowest and highest score; `watched` says that drift was
-- measured.
WITH watched AS (
    SELECT DISTINCT unnest(
        list_append(coalesce((figures->'$.drift.runs')::VARCHAR[], []), run_id)
    ) AS run_id
    FROM runs_all
    WHERE json_exists(figures, '$.drift')
),
touched AS (
    SELECT DISTINCT run_id, completion_id, spec_id, judging_id
    FROM judgements_all
    -- Scores that came with traces are not of this judge.
    WHERE spec_id IS NOT NULL
),
judged AS (
    SELECT
        t.run_id, t.completion_id,
        min(j.score) AS lowest,
        max(j.score) - min(j.score) AS spread,
        count(j.score) AS num_read
    FROM touched AS t
    JOIN judgements_all AS j USING (completion_id, spec_id, judging_id)
    GROUP BY ALL
)
SELECT
    r.recipe,
    r.run_id,
    r.started_at,
    count(*) AS num_judged,
    count(*) FILTER (
        j.lowest >= r.threshold AND j.num_read >= r.num_judgements
    ) AS num_accepted,
    round(num_accepted / num_judged, 4) AS acceptance,
    round(avg(j.spread) FILTER (j.num_read > 1), 4) AS spread,
    any_value(w.run_id) IS NOT NULL AS watched,
    any_value(h.alarm) AS alarm
FROM judged AS j
JOIN runs AS r USING (run_id)
LEFT JOIN watched AS w USING (run_id)
LEFT JOIN held AS h USING (run_id)
WHERE r.flow = 'refresh'
GROUP BY r.recipe, r.run_id, r.started_at
ORDER BY r.started_at;
