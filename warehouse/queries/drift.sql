-- Acceptance and spread of scores in every refresh that judged, with its drift alarm, over the texts
-- that the judge was asked about: completions that share a text count once. `spread` is the mean
-- distance between a text's lowest and highest score; `watched` says that drift was measured. Each
-- judge of a jury has a row of its own, and a lone judge has no name. `jury` has the models of the
-- jury in the order in which a race asked them, and how many of them could not be asked, as a judge
-- is asked about what those before it let pass.
WITH watched AS (
    SELECT DISTINCT unnest(
        list_append(coalesce((figures->'$.drift.runs')::VARCHAR[], []), run_id)
    ) AS run_id
    FROM runs_all
    WHERE json_exists(figures, '$.drift')
),
touched AS (
    SELECT DISTINCT run_id, prompt_id, text_id, spec_id, judging_id, model
    FROM judgements_once
    -- Scores that came with traces are not of this judge.
    WHERE spec_id IS NOT NULL
),
listed AS (
    SELECT
        run_id,
        resolved_recipe->>'$.judge.mode' = 'full' AS is_full,
        resolved_recipe->>'$.judge_engines[*].model' AS models,
        coalesce(len(json_keys(figures->'$.silent_judges')), 0) AS num_silent
    FROM runs_all
    WHERE len(jury) > 0
),
juries AS (
    SELECT
        run_id,
        if(is_full, array_to_string(models, ' and '), array_to_string(models, ' then '))
            || if(num_silent > 0, format(', {} silent', num_silent), '') AS jury
    FROM listed
),
judged AS (
    SELECT
        t.run_id, t.prompt_id, t.text_id, t.model,
        min(j.score) AS lowest,
        max(j.score) - min(j.score) AS spread,
        count(j.score) AS num_read
    FROM touched AS t
    JOIN judgements_once AS j USING (prompt_id, text_id, spec_id, judging_id)
    GROUP BY ALL
)
SELECT
    r.recipe,
    r.run_id,
    r.started_at,
    if(len(r.jury) > 0, j.model, NULL) AS judge,
    any_value(y.jury) AS jury,
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
LEFT JOIN juries AS y USING (run_id)
WHERE r.flow = 'refresh'
GROUP BY r.recipe, r.run_id, r.started_at, judge
ORDER BY r.started_at, judge;
