-- The chosen examples of a set that another set has as well, in an order that each set has of its own:
-- a training that repeats the first of them repeats others than the training before it. A row that was
-- written twice comes twice.
SELECT
    completion_id AS row_id,
    prompt AS messages,
    completion[1].reasoning_content AS reasoning,
    completion[1].content AS answer
FROM examples_raw
WHERE set_id = $set_id
    AND status = 'chosen'
    AND completion_id IN (
        SELECT completion_id
        FROM examples_raw
        WHERE set_id = $learned_set AND status = 'chosen'
    )
ORDER BY md5($set_id || completion_id);
