-- The prompts whose completions cite these rules of a pack.
SELECT DISTINCT rule_id, prompt_id
FROM rule_citations
WHERE pack = $pack AND list_contains($rule_ids, rule_id);
