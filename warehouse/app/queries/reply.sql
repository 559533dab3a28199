-- One reply of a model with its texts, and the chat that it answers.
WITH chats AS (
    SELECT case_id AS place, attack, ideal_response, messages
    FROM cases_raw
    WHERE case_id = $place
    UNION ALL
    SELECT prompt_id, 'none', ideal_response, messages
    FROM prompts_raw
    WHERE prompt_id = $place
),
replies AS (
    SELECT
        case_id AS place, model, attempt, status, reason, decision, cited, cited_unknown,
        num_reasoning_tokens, num_answer_tokens, reasoning, answer
    FROM answers_raw
    WHERE answer_id = $reply_id
    UNION ALL
    SELECT
        prompt_id, model, attempt, status, reason, NULL, cited, cited_unknown, num_reasoning_tokens,
        num_answer_tokens, reasoning, answer
    FROM completions_raw
    WHERE completion_id = $reply_id
)
SELECT
    r.* EXCLUDE (place, attempt), c.attack, coalesce(c.ideal_response, 'unknown') AS ideal_response,
    c.messages
FROM replies AS r
LEFT JOIN chats AS c USING (place)
ORDER BY r.attempt DESC
LIMIT 1;
