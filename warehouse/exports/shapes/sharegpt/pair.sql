-- ShareGPT with a better and a worse reply.
SELECT
    completion_id AS id,
    list_transform(messages, lambda turn: {"from": speaker(turn.role), value: turn.content})
        AS conversations,
    {"from": 'gpt', value: tagged(chosen_reasoning, chosen_answer)} AS chosen,
    {"from": 'gpt', value: tagged(rejected_reasoning, rejected_answer)} AS rejected,
    * EXCLUDE (
        completion_id, messages, chosen_reasoning, chosen_answer, rejected_reasoning,
        rejected_answer
    )
FROM rows
