-- The completions of relation `wanted(prompt_id, spec_id)` that a run accepts, the best first.
SELECT
    c.completion_id, c.text_id, c.prompt_id, c.spec_id, c.cited, c.cited_unknown, c.answer,
    c.reasoning, p.categories, p.ideal_response, p.messages, v.min_score, v.scores
FROM verdicts AS v
JOIN completions AS c USING (completion_id)
JOIN prompts AS p USING (prompt_id)
-- Another recipe may judge the same completions by another threshold or number of samples.
JOIN runs_all AS r ON r.num_judgements = v.num_judgements AND r.threshold = v.threshold
SEMI JOIN wanted AS w ON c.prompt_id = w.prompt_id AND c.spec_id = w.spec_id
WHERE r.run_id = $run_id
    AND v.verdict = 'accepted'
    AND c.generation_id = $generation_id
    AND v.judging_id = $judging_id
ORDER BY c.prompt_id, v.min_score DESC, list_avg(v.scores) DESC, c.completion_id;
