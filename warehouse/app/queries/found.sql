-- The completions whose prompt, reasoning or answer contains a text, in any case.
WITH texts AS (
    SELECT completion_id, text_id
    FROM completions_raw
    WHERE contains(lower(reasoning), lower($text)) OR contains(lower(answer), lower($text))
),
chats AS (
    SELECT prompt_id
    FROM prompts_raw
    WHERE len(list_filter(
        messages,
        lambda turn: contains(lower(concat_ws(' ', turn.content, turn.tool_calls)), lower($text))
    )) > 0
)
SELECT number FROM app.rows SEMI JOIN texts USING (completion_id, text_id)
UNION
SELECT number FROM app.rows SEMI JOIN chats USING (prompt_id);
