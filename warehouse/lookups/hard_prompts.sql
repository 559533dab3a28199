-- Prompts that models fail on, the worst first: less than `$below` of their completions are accepted,
-- or such is the mean reward of their rollouts in the latest RL, or the mean grade of what trained
-- models answered in the current evaluation. The rule of a prompt is the one that it was drafted for,
-- else the one that most of its completions and of those answers cite first, accepted ones before
-- others.
WITH judged AS (
    SELECT c.prompt_id, 'verdicts' AS found_in, avg((v.verdict = 'accepted')::INT) AS value
    FROM verdicts AS v
    JOIN completions AS c USING (completion_id)
    WHERE v.verdict IN ('accepted', 'rejected', 'failed')
    GROUP BY c.prompt_id
),
rewarded AS (
    SELECT prompt_id, 'rollouts' AS found_in, avg(reward) AS value
    FROM rollouts
    WHERE reward IS NOT NULL AND checkpoint_id = (
        SELECT checkpoint_id FROM checkpoints WHERE stage = 'rl' ORDER BY created_at DESC LIMIT 1
    )
    GROUP BY prompt_id
),
graded_answers AS (
    SELECT g.prompt_id, 'grades' AS found_in, avg(g.value) AS value
    FROM graded AS g
    JOIN metrics AS m ON m.score = g.score AND m.kind = g.kind
    SEMI JOIN (SELECT arm FROM arms WHERE checkpoint_id IS NOT NULL) AS a USING (arm)
    WHERE m.is_adherence AND g.attack = 'none' AND g.probe = 'none'
    GROUP BY g.prompt_id
),
failing AS (
    SELECT prompt_id, min(value) AS value, arg_min(found_in, value) AS found_in
    FROM (FROM judged UNION ALL FROM rewarded UNION ALL FROM graded_answers)
    WHERE value < $below
    GROUP BY prompt_id
),
first_cited AS (
    SELECT c.prompt_id, c.cited[1] AS rule_id, if(a.completion_id IS NULL, 0, 1) AS weight
    FROM completions AS c
    LEFT JOIN (SELECT DISTINCT completion_id FROM verdicts WHERE accepted) AS a
        USING (completion_id)
    UNION ALL
    SELECT prompt_id, cited[1], 0
    FROM cells
    SEMI JOIN (SELECT arm FROM arms WHERE checkpoint_id IS NOT NULL) AS a USING (arm)
    WHERE attack = 'none' AND probe = 'none'
    UNION ALL
    SELECT prompt_id, rule_id, 2
    FROM drafts
),
decided AS (
    SELECT prompt_id, rule_id
    FROM first_cited
    WHERE list_contains($rule_ids, rule_id)
    GROUP BY prompt_id, rule_id
    QUALIFY row_number() OVER (
        PARTITION BY prompt_id ORDER BY max(weight) DESC, count(*) DESC, rule_id
    ) = 1
),
chats AS (
    SELECT prompt_id, ideal_response, messages FROM prompts
    UNION ALL
    SELECT prompt_id, any_value(ideal_response), any_value(original)
    FROM cases
    ANTI JOIN prompts USING (prompt_id)
    GROUP BY prompt_id
)
SELECT
    f.prompt_id, d.rule_id, c.ideal_response, f.value, f.found_in,
    c.messages[-1].content AS request,
    EXISTS (
        FROM cases AS k
        WHERE k.prompt_id = f.prompt_id AND list_contains($suites, k.suite)
    ) AS is_of_suite
FROM failing AS f
JOIN chats AS c USING (prompt_id)
LEFT JOIN decided AS d USING (prompt_id)
ORDER BY f.value, f.prompt_id;
