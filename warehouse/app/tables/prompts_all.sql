-- Every prompt once, without its chat, each with a number.
SELECT (row_number() OVER () - 1)::INTEGER AS prompt_number, * EXCLUDE (messages, metadata)
FROM memory.main.prompts_all;
