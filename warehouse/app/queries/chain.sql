-- One completion with its texts and its prompt.
SELECT
    r.* EXCLUDE (number), c.reason, c.reasoning, c.answer, p.messages
FROM app.rows AS r
JOIN completions_raw AS c USING (completion_id, text_id)
JOIN prompts_raw AS p ON p.prompt_id = r.prompt_id
WHERE c.completion_id = $completion_id AND r.completion_id = $completion_id
  AND p.prompt_id = (SELECT prompt_id FROM app.rows WHERE completion_id = $completion_id)
LIMIT 1;
