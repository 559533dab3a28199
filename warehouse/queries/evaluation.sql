-- How models did in each suite: the mean of every score, over harmful, benign and all prompts.
WITH kinds AS (
    SELECT
        *,
        CASE
            WHEN ideal_response IS NULL THEN 'ambiguous'
            WHEN ideal_response = 'comply' THEN 'benign'
            ELSE 'harmful'
        END AS kind
    FROM evaluations
),
grouped AS (
    SELECT * FROM kinds
    UNION ALL
    SELECT * REPLACE ('all' AS kind) FROM kinds
),
answers AS (
    SELECT
        model, checkpoint_id, suite, suite_version, evaluating_id, kind,
        count(*) AS num_answers,
        count(*) FILTER (len(scores) = 0) AS num_failed
    FROM grouped
    GROUP BY ALL
),
graded AS (
    SELECT
        model, checkpoint_id, suite, suite_version, evaluating_id, kind, unnest(scores) AS score
    FROM grouped
)
SELECT
    coalesce(c.stage, 'base') AS stage,
    g.suite,
    g.kind AS prompts,
    g.score.name AS score,
    round(avg(g.score.value), 4) AS mean,
    count(g.score.value) AS num_graded,
    any_value(a.num_answers) AS num_answers,
    any_value(a.num_failed) AS num_failed,
    g.model,
    g.suite_version,
    g.evaluating_id
FROM graded AS g
JOIN answers AS a USING (model, suite_version, evaluating_id, kind)
LEFT JOIN checkpoints AS c ON c.checkpoint_id = g.checkpoint_id
GROUP BY ALL
ORDER BY g.suite, prompts, score, stage, g.model;
