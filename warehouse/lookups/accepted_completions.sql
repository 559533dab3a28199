-- The completions of view `wanted_completions` that a run accepts, or that people accept of those that
-- it has a score of, the best first: of a prompt, those that people accept come before others.
SELECT
    c.completion_id, c.text_id, c.prompt_id, v.spec_id, c.cited, c.cited_unknown, c.answer,
    c.reasoning, p.categories, p.ideal_response, p.messages, v.judging_id, v.min_score, v.scores,
    v.accepted, h.review_verdict
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
LEFT JOIN reviewed AS h ON h.completion_id = v.completion_id
WHERE r.run_id = $run_id
    AND v.judging_id = coalesce(w.judging_id, $judging_id)
    AND (
        v.accepted
        -- An example has a score, and no word of a person makes a reply whole that was cut.
        OR (h.review_verdict = 'accepted' AND v.verdict <> 'failed' AND v.min_score IS NOT NULL)
    )
ORDER BY
    c.prompt_id, coalesce(h.review_verdict = 'accepted', false) DESC, v.min_score DESC,
    list_avg(v.scores) DESC, c.completion_id;
