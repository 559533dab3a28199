-- TRL, conversational prompt and completion: the loss is on the completion alone.
SELECT
    turns(messages) AS prompt, [reply(reasoning, answer)] AS completion,
    * EXCLUDE (messages, reasoning, answer)
FROM rows
