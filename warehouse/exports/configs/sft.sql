-- The frozen examples whose completions are still accepted, without the spec.
WITH frozen AS (
    SELECT DISTINCT e.completion_id
    FROM examples AS e
    JOIN latest_plans AS l USING (set_id)
    WHERE e.status = 'chosen'
)
SELECT
    l.completion_id, l.prompt_id, l.category, l.categories, l.ideal_response, l.language, l.source,
    l.transform, l.model, l.spec_id, l.score, l.scores, l.cited,
    p.messages, c.reasoning, c.answer
FROM leaving AS l
SEMI JOIN frozen AS f USING (completion_id)
JOIN completions AS c USING (completion_id)
JOIN prompts AS p ON p.prompt_id = l.prompt_id
WHERE l.verdict = 'accepted'
