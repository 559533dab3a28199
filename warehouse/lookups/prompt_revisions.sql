-- All rows of one prompt, the latest first.
SELECT *
FROM prompts_raw
WHERE prompt_id = $prompt_id
ORDER BY revision DESC, created_at DESC;
