-- ShareGPT, up to the reply.
SELECT
    prompt_id AS id,
    list_transform(messages, lambda turn: {"from": speaker(turn.role), value: turn.content})
        AS conversations,
    * EXCLUDE (completion_id, messages)
FROM rows
