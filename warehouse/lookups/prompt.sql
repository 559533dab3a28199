-- One prompt.
SELECT *
FROM prompts_all
WHERE prompt_id = $prompt_id;
