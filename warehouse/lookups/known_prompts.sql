-- The newest row of every prompt, without its texts.
SELECT prompt_id, revision, version, status, categories, assigning_id
FROM prompts_all;
