-- The chosen examples of a set that another set lacks. A row that was written twice comes twice.
SELECT
    completion_id AS row_id,
    prompt AS messages,
    completion[1].reasoning_content AS reasoning,
    completion[1].content AS answer
FROM examples_raw
WHERE set_id = $set_id
    AND status = 'chosen'
    AND completion_id NOT IN (
        SELECT completion_id
        FROM examples_raw
        WHERE set_id = $learned_set AND status = 'chosen'
    );
