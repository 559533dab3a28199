-- The categories that the judge model chose. Reads relation `unassigned(block_key, prompt)`.
SELECT p.prompt_id, p.categories
FROM prompts_all AS p
JOIN unassigned AS u
    ON p.prompt_id = u.prompt.prompt_id
    AND p.revision >= u.prompt.revision;
