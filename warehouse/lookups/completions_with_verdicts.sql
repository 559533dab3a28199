-- Every completion with its prompt's messages, its verdict, and the scores that the verdict rests on.
SELECT p.messages, c.answer, c.cited, v.scores, v.threshold, v.verdict
FROM completions AS c
JOIN prompts AS p USING (prompt_id)
JOIN verdicts AS v USING (completion_id);
