-- How arms hold under each attack, on harmful requests: which attacks work.
WITH suites AS (
    SELECT DISTINCT suite FROM run_cases WHERE attack <> 'none'
),
prompts AS (
    SELECT
        {
            arm: g.arm, suite: g.suite, attack: g.attack, sanitised: g.sanitised,
            grader: g.grader, score: g.score
        } AS member,
        g.prompt_id,
        avg(g.value) AS value
    FROM graded AS g
    SEMI JOIN suites AS s USING (suite)
    WHERE g.probe = 'none' AND g.kind = 'harmful'
      AND g.score IN ('safe', 'good', 'right', 'decision')
    GROUP BY ALL
)
SELECT
    arm, suite, attack, sanitised, grader, score, i.mean, i.low, i.high, i.num_prompts
FROM intervals('prompts') AS i
JOIN arm_order AS o USING (arm)
ORDER BY suite, grader, score, attack <> 'none', attack, sanitised DESC, o.place, arm;
