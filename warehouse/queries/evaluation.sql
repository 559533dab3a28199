-- How models did in each suite: the mean of every score, over harmful, benign and all prompts.
WITH graded AS (
    SELECT
        e.model, e.checkpoint_id, e.suite, e.suite_version,
        CASE
            WHEN e.ideal_response IS NULL THEN 'ambiguous'
            WHEN e.ideal_response = 'comply' THEN 'benign'
            ELSE 'harmful'
        END AS kind,
        unnest(e.scores) AS score
    FROM evaluations AS e
),
grouped AS (
    SELECT * FROM graded
    UNION ALL
    SELECT * REPLACE ('all' AS kind) FROM graded
)
SELECT
    coalesce(c.stage, 'base') AS stage,
    g.suite,
    g.kind AS prompts,
    g.score.name AS score,
    round(avg(g.score.value), 4) AS mean,
    count(g.score.value) AS num_graded,
    g.model,
    g.suite_version
FROM grouped AS g
LEFT JOIN checkpoints AS c USING (checkpoint_id)
GROUP BY ALL
ORDER BY g.suite, prompts, score, stage, g.model;
