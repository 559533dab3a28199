-- How far each judge's scores of the same completion lie apart, with its number.
SELECT c.number, v.*
FROM memory.main.judge_spreads AS v
JOIN app.completions AS c USING (completion_id);
