-- Completions whose ids start so; two are enough to know that there are several.
SELECT *
FROM completions_all
WHERE starts_with(completion_id, $row_id)
LIMIT 2;
