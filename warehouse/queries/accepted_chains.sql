-- Accepted completions that cite rules, refusals first: they cite the most.
WITH accepted AS (
    SELECT completion_id, scores, min_score
    FROM verdicts
    WHERE verdict = 'accepted'
)
SELECT
    c.completion_id,
    spec_key(p.categories) AS category,
    p.ideal_response,
    p.messages[-1].content AS request,
    c.reasoning,
    c.answer,
    c.cited,
    a.scores
FROM accepted AS a
JOIN completions AS c USING (completion_id)
JOIN prompts AS p USING (prompt_id)
WHERE len(c.cited) > 0
ORDER BY p.ideal_response = 'comply', c.completion_id
LIMIT 20;
