-- Prompts with both accepted and rejected completions, from which RL can learn.
WITH rates AS (
    SELECT
        c.prompt_id,
        count(*) AS num_judged,
        avg((v.verdict = 'accepted')::INT) AS acceptance
    FROM completions AS c
    JOIN verdicts AS v USING (completion_id)
    WHERE v.verdict IN ('accepted', 'rejected')
    GROUP BY c.prompt_id
)
SELECT
    r.prompt_id,
    spec_key(p.categories) AS category,
    p.ideal_response,
    r.num_judged,
    round(r.acceptance, 3) AS acceptance,
    p.messages
FROM rates AS r
JOIN prompts AS p USING (prompt_id)
WHERE r.acceptance > 0 AND r.acceptance < 1
ORDER BY r.prompt_id;
