-- Ids of the prompts that are stored.
SELECT prompt_id
FROM prompts;
