-- The prompts of judged completions, with the share that was accepted; if `$undecided`, those alone
-- with both accepted and rejected ones, from which RL can learn.
WITH rates AS (
    SELECT
        prompt_id, min(spec_id) AS spec_id, count(*) AS num_judged,
        count_if(verdict = 'accepted') AS num_accepted
    FROM leaving
    WHERE verdict IN ('accepted', 'rejected')
    GROUP BY prompt_id
)
SELECT
    r.prompt_id AS completion_id, r.prompt_id, l.category, l.categories, l.ideal_response,
    l.language, l.source, l.transform, r.spec_id, r.num_judged,
    round(r.num_accepted / r.num_judged, 3) AS acceptance,
    p.messages
FROM rates AS r
JOIN leaving_prompts AS l USING (prompt_id)
JOIN prompts AS p USING (prompt_id)
WHERE NOT $undecided OR (r.num_accepted > 0 AND r.num_accepted < r.num_judged)
