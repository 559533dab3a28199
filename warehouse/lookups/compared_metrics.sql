-- B less A by metric, paired by prompt, with its interval. Reads tables `values_a` and `values_b`.
WITH paired AS (
    SELECT
        {arm: a.arm, suite: a.suite, metric: a.metric, grader: a.grader} AS member,
        a.prompt_id,
        b.value - a.value AS value
    FROM values_a AS a
    JOIN values_b AS b USING (arm, suite, metric, grader, prompt_id)
),
means AS (
    SELECT arm, suite, metric, grader, avg(a.value) AS a, avg(b.value) AS b
    FROM values_a AS a
    JOIN values_b AS b USING (arm, suite, metric, grader, prompt_id)
    GROUP BY ALL
)
SELECT
    arm, suite, metric, grader, round(m.a, 4) AS a, round(m.b, 4) AS b,
    i.mean AS difference, i.low, i.high, i.num_prompts
FROM intervals('paired') AS i
JOIN means AS m USING (arm, suite, metric, grader)
ORDER BY suite, metric, grader, arm;
