-- The current completions that may leave, each once, with the best of its verdicts and what people
-- say of it.
SELECT
    c.completion_id, c.prompt_id, v.spec_id, c.generation_id, v.judging_id, c.model, c.cited,
    c.num_reasoning_tokens, v.verdict, v.threshold,
    if(v.verdict IN ('accepted', 'rejected'), v.min_score, NULL) AS score,
    v.scores, h.review_verdict AS review, p.* EXCLUDE (prompt_id, is_held_out)
FROM verdicts AS v
JOIN completions AS c USING (completion_id)
JOIN leaving_prompts AS p USING (prompt_id)
LEFT JOIN reviewed AS h USING (completion_id)
WHERE c.status = 'ok' AND NOT p.is_held_out
QUALIFY row_number() OVER (
    PARTITION BY c.completion_id
    ORDER BY list_position(['accepted', 'held', 'rejected', 'unjudged'], v.verdict), v.judging_id
) = 1;
