-- The prompts of relation `candidates(prompt_id, categories)` that have a category; if `undecided`,
-- those alone of whose completions some were accepted and some were not.
WITH undecided AS (
    SELECT c.prompt_id
    FROM completions AS c
    JOIN verdicts AS v USING (completion_id)
    WHERE c.generation_id = $generation_id
        AND v.judging_id = $judging_id
    GROUP BY c.prompt_id
    HAVING bool_or(v.verdict = 'accepted')
        AND bool_or(v.verdict IN ('rejected', 'failed'))
)
SELECT p.prompt_id, p.messages, a.categories, p.ideal_response
FROM candidates AS a
JOIN prompts AS p USING (prompt_id)
WHERE len(a.categories) > 0
    AND (NOT $undecided OR p.prompt_id IN (SELECT prompt_id FROM undecided))
ORDER BY p.prompt_id;
