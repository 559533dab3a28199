-- STAR-1's form, which has one question a row: chats of several turns, or with a system turn, have none.
SELECT
    completion_id AS id,
    messages[1].content AS question,
    tagged(reasoning, answer) AS response,
    categories AS category,
    source,
    {lowest: score} AS score,
    * EXCLUDE (
        completion_id, messages, reasoning, answer, category, categories, source, score
    )
FROM rows
