-- The prompts of judged completions, with the share that was accepted; if `$undecided`, those alone
-- with both accepted and rejected ones, from which RL can learn.
WITH rates AS (
    SELECT
        prompt_id, any_value(spec_id) AS spec_id, count(*) AS num_judged,
        round(avg((verdict = 'accepted')::INT), 3) AS acceptance
    FROM leaving
    WHERE verdict IN ('accepted', 'rejected')
    GROUP BY prompt_id
)
SELECT
    r.prompt_id AS completion_id, r.prompt_id, l.category, l.categories, l.ideal_response,
    l.language, l.source, l.transform, r.spec_id, r.num_judged, r.acceptance,
    p.messages
FROM rates AS r
JOIN leaving_prompts AS l USING (prompt_id)
JOIN prompts AS p USING (prompt_id)
WHERE NOT $undecided OR (r.acceptance > 0 AND r.acceptance < 1)
