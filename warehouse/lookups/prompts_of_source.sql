-- The prompts whose newest row came from a source, with their labels.
SELECT prompt_id, ideal_response
FROM prompts
WHERE source = $source;
