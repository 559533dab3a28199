-- One completion with its texts and its prompt.
SELECT
    r.* EXCLUDE (number), c.reason, c.reasoning, c.answer, p.messages
FROM app.rows AS r
JOIN completions_raw AS c USING (completion_id, text_id)
LEFT JOIN (
    FROM prompts_raw
    WHERE prompt_id = (SELECT prompt_id FROM app.rows WHERE completion_id = $completion_id)
) AS p ON p.prompt_id = r.prompt_id
WHERE c.completion_id = $completion_id AND r.completion_id = $completion_id
LIMIT 1;
