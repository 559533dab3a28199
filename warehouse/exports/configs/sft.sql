-- The frozen examples that people, or else the judge, still accept, without the spec.
WITH sets AS (
    -- A run in progress has its set in the figures alone.
    SELECT coalesce(set_id, figures->>'$.curate.set_id') AS set_id FROM latest_plans
),
frozen AS (
    SELECT DISTINCT e.completion_id
    FROM examples AS e
    JOIN sets USING (set_id)
    WHERE e.status = 'chosen'
)
SELECT
    l.completion_id, l.prompt_id, l.category, l.categories, l.ideal_response, l.language, l.source,
    l.transform, l.model, l.spec_id, l.score, l.scores, l.review, l.cited,
    p.messages, c.reasoning, c.answer
FROM leaving AS l
SEMI JOIN frozen AS f USING (completion_id)
JOIN completions AS c USING (completion_id)
JOIN prompts AS p ON p.prompt_id = l.prompt_id
WHERE l.review = 'accepted'
   OR (l.verdict = 'accepted' AND coalesce(l.review, 'unsure') = 'unsure')
