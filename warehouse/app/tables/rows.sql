-- What filters and lists need of each completion, which has the best of its verdicts.
WITH best AS (
    SELECT *
    FROM app.verdicts
    QUALIFY row_number() OVER (
        PARTITION BY number
        ORDER BY verdict_rank(verdict) DESC, judging_id, spec_id, threshold, num_judgements
    ) = 1
)
SELECT
    c.number, c.completion_id, c.text_id, c.prompt_id, c.run_id, c.model, c.created_at, c.status,
    c.cited, c.cited_unknown, c.num_reasoning_tokens, c.num_answer_tokens,
    spec_key(p.categories) AS category,
    coalesce(p.ideal_response, 'unknown') AS ideal_response,
    p.language, p.source,
    coalesce(v.verdict, CASE c.status WHEN 'ok' THEN 'unjudged' ELSE 'failed' END) AS verdict,
    v.threshold, v.min_score, v.scores,
    list_max(v.scores) - v.min_score AS spread
FROM app.completions AS c
LEFT JOIN app.prompts_all AS p USING (prompt_id)
LEFT JOIN best AS v USING (number);
