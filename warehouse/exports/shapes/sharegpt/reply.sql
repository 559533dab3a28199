-- ShareGPT: who says what, with the reasoning between tags.
SELECT
    completion_id AS id,
    list_append(
        list_transform(messages, lambda turn: {"from": speaker(turn.role), value: turn.content}),
        {"from": 'gpt', value: tagged(reasoning, answer)}
    ) AS conversations,
    * EXCLUDE (completion_id, messages, reasoning, answer)
FROM rows
