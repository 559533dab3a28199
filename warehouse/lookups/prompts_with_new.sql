-- The prompts that are stored, and those of relation `new_prompts`, of which the newer row counts.
SELECT *
FROM new_prompts
UNION ALL BY NAME
SELECT *
FROM memory.main.prompts
ANTI JOIN new_prompts USING (prompt_id);
