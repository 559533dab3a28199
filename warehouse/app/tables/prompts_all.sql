-- Every prompt once, without its chat.
SELECT * EXCLUDE (messages, metadata) FROM memory.main.prompts_all;
