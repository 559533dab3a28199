-- The examples that the latest run of each recipe froze: what SFT trains on.
WITH sets AS (
    SELECT DISTINCT set_id FROM plans
)
SELECT
    e.completion_id,
    e.prompt_id,
    array_to_string(e.categories, '+') AS category,
    e.ideal_response,
    e.score,
    e.cited,
    e.prompt,
    e.completion
FROM examples AS e
SEMI JOIN sets USING (set_id)
WHERE e.status = 'chosen'
ORDER BY e.completion_id;
