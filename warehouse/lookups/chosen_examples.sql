-- The chosen examples of a set. A row that was written twice comes twice: to drop it here would
-- hold all texts in memory.
SELECT
    completion_id AS row_id,
    prompt AS messages,
    completion[1].reasoning_content AS reasoning,
    completion[1].content AS answer
FROM examples_raw
WHERE set_id = $set_id
    AND status = 'chosen';
