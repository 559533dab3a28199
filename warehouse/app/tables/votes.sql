-- The judgements that verdicts rest on, each with the number of its completion.
SELECT c.number, v.*
FROM memory.main.votes AS v
JOIN app.completions AS c USING (completion_id);
