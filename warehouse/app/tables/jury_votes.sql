-- What each judge of a jury says of each completion, with its number.
SELECT c.number, v.*
FROM memory.main.jury_votes AS v
JOIN app.completions AS c USING (completion_id);
