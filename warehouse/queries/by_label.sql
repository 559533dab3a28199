-- Every metric by a suite's own class of a prompt, by arm and reasoning budget.
WITH answered AS MATERIALIZED (
    FROM metric_values
    WHERE slice = 'all' AND label IS NOT NULL
),
prompts AS (
    SELECT
        {
            arm: arm, budget: budget, suite: suite, label: label, metric: metric, grader: grader
        } AS member,
        prompt_id,
        avg(value) AS value
    FROM answered
    GROUP BY ALL
),
lengths AS (
    SELECT
        arm, budget, suite, label, metric, grader,
        round(avg(num_reasoning_tokens), 1) AS mean_reasoning_tokens
    FROM answered
    GROUP BY ALL
)
SELECT
    i.arm, i.budget, i.suite, i.label, i.metric, i.grader, i.mean, i.low, i.high,
    l.mean_reasoning_tokens, i.num_prompts
FROM intervals('prompts') AS i
JOIN lengths AS l
    ON l.arm = i.arm
   AND l.budget IS NOT DISTINCT FROM i.budget
   AND l.suite = i.suite
   AND l.label = i.label
   AND l.metric = i.metric
   AND l.grader = i.grader
JOIN arm_order AS o ON o.arm = i.arm
ORDER BY i.suite, i.metric, i.grader, i.label, o.place, i.arm, i.budget NULLS LAST;
