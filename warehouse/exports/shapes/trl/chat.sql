-- TRL, conversational: prompt and reply in one list, which `[[traces]]` reads as well.
SELECT
    list_concat(turns(messages), [reply(reasoning, answer)]) AS messages,
    * EXCLUDE (messages, reasoning, answer)
FROM rows
