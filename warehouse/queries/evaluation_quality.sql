-- Fitness of each arm to be reported in each suite: shares of answers and grades that were read,
-- and the spread of the ratings of an answer.
WITH answered AS (
    SELECT
        arm, suite,
        count(*) AS num_answers,
        avg(coalesce(status = 'ok', false)::INT) AS answered,
        avg(closed_by_force::INT) AS capped,
        avg(num_reasoning_tokens) AS reasoning_tokens,
        avg(num_answer_tokens) AS answer_tokens
    FROM cells
    WHERE probe = 'none'
    GROUP BY ALL
),
gradings AS (
    SELECT
        g.arm, g.suite, g.case_id, g.answer_id, g.grader,
        any_value(r.num_votes) AS num_wanted,
        max(g.num_votes) AS num_read
    FROM graded AS g
    JOIN run_graders AS r USING (grader)
    WHERE g.probe = 'none' AND g.status = 'ok'
    GROUP BY g.arm, g.suite, g.case_id, g.answer_id, g.grader
),
spreads AS (
    SELECT answer_id, grader, max(value) - min(value) AS spread
    FROM run_scores
    WHERE name = 'rating'
    GROUP BY ALL
    HAVING count(value) > 1
),
by_grader AS (
    SELECT
        g.arm, g.suite, g.grader,
        1 - sum(g.num_read) / sum(g.num_wanted) AS unread_votes,
        avg(s.spread) AS spread
    FROM gradings AS g
    LEFT JOIN spreads AS s USING (answer_id, grader)
    GROUP BY ALL
),
-- The worst grader counts: others that read everything must not hide it.
voted AS (
    SELECT arm, suite, max(unread_votes) AS unread_votes, avg(spread) AS spread
    FROM by_grader
    GROUP BY ALL
)
SELECT
    arm, suite, a.num_answers,
    round(a.answered, 4) AS answered,
    round(a.capped, 4) AS capped,
    round(v.unread_votes, 4) AS unread_votes,
    round(v.spread, 4) AS spread,
    round(a.reasoning_tokens, 1) AS reasoning_tokens,
    round(a.answer_tokens, 1) AS answer_tokens,
    a.answered >= 0.95 AND coalesce(v.unread_votes <= 0.02, false) AS reportable
FROM answered AS a
LEFT JOIN voted AS v USING (arm, suite)
JOIN arm_order AS o USING (arm)
ORDER BY suite, o.place, arm;
