-- Every metric by seed of an arm: its mean over all prompts of a suite.
WITH prompts AS (
    SELECT arm, seed, suite, metric, grader, prompt_id, avg(value) AS value
    FROM metric_values
    WHERE slice = 'all'
    GROUP BY ALL
),
means AS (
    SELECT arm, seed, suite, metric, grader, round(avg(value), 4) AS mean
    FROM prompts
    GROUP BY ALL
)
SELECT m.*
FROM means AS m
JOIN arm_order AS o USING (arm)
ORDER BY m.suite, m.metric, m.grader, o.place, m.arm, m.seed;
