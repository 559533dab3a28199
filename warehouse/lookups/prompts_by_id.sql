-- Prompts whose ids start so; two are enough to know that there are several.
SELECT *
FROM prompts_all
WHERE starts_with(prompt_id, $row_id)
LIMIT 2;
