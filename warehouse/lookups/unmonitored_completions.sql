-- The current completions whose reasoning the monitors of a version have not read, each with the spec
-- that it was made under; of a trace, with one that it may be judged under.
SELECT
    c.completion_id AS row_id, c.text_id, coalesce(c.spec_id, t.spec_id) AS spec_id, c.cited,
    c.cited_unknown, c.reasoning, c.answer
FROM completions AS c
LEFT JOIN (SELECT completion_id, min(spec_id) AS spec_id FROM trace_specs GROUP BY ALL) AS t
    USING (completion_id)
ANTI JOIN (FROM findings WHERE kind = 'completions' AND monitoring_id = $monitoring_id) AS f
    ON f.row_id = c.completion_id AND f.text_id = c.text_id
WHERE c.reasoning <> '';
