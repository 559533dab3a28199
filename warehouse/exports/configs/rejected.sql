-- The completions with a score under the threshold that people do not accept, each with the lowest
-- score and the judge's words on it.
WITH lowest AS (
    SELECT
        j.completion_id,
        arg_min(j.rationale, j.score) AS rationale,
        arg_min(j.lowest_criterion, j.score) AS criterion
    FROM votes AS j
    JOIN leaving AS l
        ON l.completion_id = j.completion_id AND l.judging_id = j.judging_id
    WHERE l.verdict = 'rejected' AND j.score IS NOT NULL
    GROUP BY j.completion_id
)
SELECT
    l.completion_id, l.prompt_id, l.category, l.categories, l.ideal_response, l.language, l.source,
    l.transform, l.model, l.spec_id, l.score, l.scores, l.review, w.criterion, w.rationale,
    l.cited,
    p.messages, c.reasoning, c.answer
FROM leaving AS l
JOIN completions AS c USING (completion_id)
JOIN prompts AS p ON p.prompt_id = l.prompt_id
LEFT JOIN lowest AS w ON w.completion_id = l.completion_id
WHERE l.verdict = 'rejected' AND l.review IS DISTINCT FROM 'accepted'
