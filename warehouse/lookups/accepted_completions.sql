-- The completions of view `wanted_completions` that a run accepts, the best first.
SELECT
    c.completion_id, c.text_id, c.prompt_id, v.spec_id, c.cited, c.cited_unknown, c.answer,
    c.reasoning, p.categories, p.ideal_response, p.messages, v.judging_id, v.min_score, v.scores
FROM verdicts AS v
JOIN completions AS c USING (completion_id)
JOIN prompts AS p USING (prompt_id)
-- Another recipe may judge the same completions by another threshold or number of samples.
JOIN plans AS r
    ON r.generation_id = c.generation_id
    AND r.spec_id = v.spec_id
    AND r.judging_id = v.judging_id
    AND r.num_judgements = v.num_judgements
    AND r.threshold = v.threshold
JOIN wanted_completions AS w
    ON w.completion_id = v.completion_id
    AND w.spec_id = v.spec_id
WHERE r.run_id = $run_id
    AND v.verdict = 'accepted'
    AND v.judging_id = coalesce(w.judging_id, $judging_id)
ORDER BY c.prompt_id, v.min_score DESC, list_avg(v.scores) DESC, c.completion_id;
