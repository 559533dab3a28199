-- Ids of the prompts whose newest row came from a source.
SELECT prompt_id
FROM prompts
WHERE source = $source;
