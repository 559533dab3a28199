-- TRL, conversational prompts alone; a reward function is given the other columns.
SELECT turns(messages) AS prompt, * EXCLUDE (completion_id, messages)
FROM rows
