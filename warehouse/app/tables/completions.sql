-- The current completions, each with its number and that of its prompt.
SELECT (row_number() OVER () - 1)::INTEGER AS number, p.prompt_number, c.*
FROM memory.main.completions AS c
LEFT JOIN app.prompts_all AS p USING (prompt_id);
