-- The completions with the lowest scores, with the judge's rationale, and the criterion of the score
-- if there are several.
WITH lowest AS (
    SELECT completion_id, judging_id, min_score, scores
    FROM verdicts
    WHERE min_score IS NOT NULL
    ORDER BY min_score, completion_id
    LIMIT 20
)
SELECT
    l.completion_id,
    l.min_score,
    l.scores,
    spec_key(p.categories) AS category,
    c.cited,
    arg_min(j.model, j.score) AS judge,
    arg_min({criterion: j.lowest_criterion}, j.score).criterion AS criterion,
    arg_min(j.rationale, j.score) AS rationale
FROM lowest AS l
JOIN completions AS c USING (completion_id)
JOIN prompts AS p USING (prompt_id)
JOIN votes AS j
    ON j.completion_id = l.completion_id AND j.judging_id = l.judging_id AND j.score IS NOT NULL
GROUP BY ALL
ORDER BY min_score, completion_id;
