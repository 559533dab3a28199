-- Every current completion in form, whatever its verdict: the file that `[[traces]]` reads elsewhere.
SELECT
    l.completion_id, l.prompt_id, l.category, l.categories, l.ideal_response, l.language, l.source,
    l.transform, l.model, l.spec_id, l.verdict, l.score, l.scores, l.review, l.cited,
    p.messages, c.reasoning, c.answer
FROM leaving AS l
JOIN completions AS c USING (completion_id)
JOIN prompts AS p ON p.prompt_id = l.prompt_id
