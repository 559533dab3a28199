-- Of each arm in each suite one answer that graders think worst, one that they think best, and one
-- on which they differ most. A grader's opinion is the score that says most of the whole answer.
WITH ranked AS (
    SELECT
        arm, suite, case_id, answer_id, grader, value,
        list_position(['good', 'right', 'decision', 'correct', 'safe', 'helped'], score) AS place
    FROM graded
    WHERE value IS NOT NULL
        AND answer_id IS NOT NULL
        AND probe = 'none'
        AND (score IN ('good', 'right', 'decision', 'correct')
            OR (score = 'safe' AND kind = 'harmful')
            OR (score = 'helped' AND kind = 'benign'))
    QUALIFY row_number() OVER (PARTITION BY arm, suite, answer_id, grader ORDER BY place) = 1
),
judged AS (
    SELECT arm, suite, case_id, answer_id, avg(value) AS mean, max(value) - min(value) AS spread
    FROM ranked
    GROUP BY ALL
),
placed AS (
    SELECT
        *,
        row_number() OVER (each_suite ORDER BY spread DESC, answer_id) AS divided,
        row_number() OVER (each_suite ORDER BY mean, answer_id) AS worst,
        row_number() OVER (each_suite ORDER BY mean DESC, spread, answer_id) AS best
    FROM judged
    WINDOW each_suite AS (PARTITION BY arm, suite)
)
SELECT
    p.arm, p.suite, p.mean, p.spread,
    list_filter([
        if(worst = 1, 'judged worst', NULL),
        if(best = 1, 'judged best', NULL),
        if(divided = 1 AND spread > 0, 'graders disagree', NULL)
    ], lambda reason: reason IS NOT NULL) AS why,
    c.prompt_id, c.case_id, c.kind, c.categories, c.ideal_response, c.attack,
    a.answer_id, a.status, a.decision, a.cited, a.cited_unknown,
    c.messages, a.reasoning, a.answer
FROM placed AS p
JOIN run_cases AS c USING (suite, case_id)
JOIN answers AS a USING (answer_id)
WHERE len(why) > 0
ORDER BY p.suite, p.arm, worst DESC, a.answer_id;
