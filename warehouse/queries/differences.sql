-- Differences between arms in every metric, paired by prompt, with their intervals.
WITH prompts AS MATERIALIZED (
    SELECT arm, suite, metric, grader, prompt_id, avg(value) AS value
    FROM metric_values
    WHERE slice = 'all'
    GROUP BY ALL
),
pairs AS (
    SELECT a.arm, b.arm AS other
    FROM arm_order AS a
    JOIN arm_order AS b ON a.place > b.place
),
paired AS (
    SELECT
        {arm: p.arm, other: p.other, suite: a.suite, metric: a.metric, grader: a.grader} AS member,
        a.prompt_id,
        a.value - b.value AS value
    FROM pairs AS p
    JOIN prompts AS a ON a.arm = p.arm
    JOIN prompts AS b
        ON b.arm = p.other
       AND b.suite = a.suite
       AND b.metric = a.metric
       AND b.grader = a.grader
       AND b.prompt_id = a.prompt_id
)
SELECT arm, other, suite, metric, grader, i.mean AS difference, i.low, i.high, i.num_prompts
FROM intervals('paired') AS i
JOIN arm_order AS a USING (arm)
JOIN arm_order AS b ON b.arm = i.other
ORDER BY suite, metric, grader, a.place, b.place;
