-- TRL, conversational preference with an explicit prompt.
SELECT
    turns(messages) AS prompt,
    [reply(chosen_reasoning, chosen_answer)] AS chosen,
    [reply(rejected_reasoning, rejected_answer)] AS rejected,
    * EXCLUDE (
        completion_id, messages, chosen_reasoning, chosen_answer, rejected_reasoning,
        rejected_answer
    )
FROM rows
