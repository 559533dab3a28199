-- Every metric by reasoning budget, with the reasoning tokens that were really used.
WITH answered AS MATERIALIZED (
    FROM metric_values
    WHERE slice = 'all'
),
prompts AS (
    SELECT
        {arm: arm, budget: budget, suite: suite, metric: metric, grader: grader} AS member,
        prompt_id,
        avg(value) AS value
    FROM answered
    GROUP BY ALL
),
lengths AS (
    SELECT
        arm, budget, suite, metric, grader,
        round(avg(num_reasoning_tokens), 1) AS mean_reasoning_tokens,
        median(num_reasoning_tokens) AS median_reasoning_tokens,
        round(avg(closed_by_force::INT), 4) AS capped
    FROM answered
    GROUP BY ALL
)
SELECT
    i.arm, i.budget, i.suite, i.metric, i.grader, i.mean, i.low, i.high,
    l.mean_reasoning_tokens, l.median_reasoning_tokens, l.capped, i.num_prompts
FROM intervals('prompts') AS i
JOIN lengths AS l
    ON l.arm = i.arm
   AND l.budget IS NOT DISTINCT FROM i.budget
   AND l.suite = i.suite
   AND l.metric = i.metric
   AND l.grader = i.grader
JOIN arm_order AS o ON o.arm = i.arm
ORDER BY i.suite, i.metric, i.grader, o.place, i.arm, i.budget NULLS LAST;
