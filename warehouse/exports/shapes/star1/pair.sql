-- STAR-1's form with a better and a worse response.
SELECT
    completion_id AS id,
    messages[1].content AS question,
    tagged(chosen_reasoning, chosen_answer) AS chosen,
    tagged(rejected_reasoning, rejected_answer) AS rejected,
    categories AS category,
    source,
    * EXCLUDE (
        completion_id, messages, chosen_reasoning, chosen_answer, rejected_reasoning,
        rejected_answer, category, categories, source
    )
FROM rows
