-- The completions of one prompt, with their verdicts.
SELECT c.completion_id, c.status, v.verdict, v.min_score, c.cited
FROM completions_all AS c
LEFT JOIN verdicts AS v USING (completion_id)
WHERE c.prompt_id = $prompt_id
ORDER BY c.sample_index;
