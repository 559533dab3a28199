-- Languages of the prompts of this export, as their sources say, with the number of prompts; null if
-- they do not say.
SELECT l.language, count(*) AS num_prompts
FROM leaving_prompts AS l
SEMI JOIN exported AS e USING (prompt_id)
GROUP BY l.language
ORDER BY num_prompts DESC, l.language;
