-- STAR-1's questions.
SELECT
    prompt_id AS id,
    messages[1].content AS question,
    categories AS category,
    source,
    * EXCLUDE (completion_id, messages, category, categories, source)
FROM rows
