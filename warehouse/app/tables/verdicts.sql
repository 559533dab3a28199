-- The verdicts, each with the number of its completion.
SELECT c.number, v.*
FROM memory.main.verdicts AS v
JOIN app.completions AS c USING (completion_id);
