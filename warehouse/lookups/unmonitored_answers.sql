-- The answers whose reasoning the monitors of a version have not read, each with the newest spec of its
-- case's categories.
WITH cases_once AS (
    SELECT case_id, any_value(categories) AS categories
    FROM cases
    GROUP BY case_id
),
newest AS (
    SELECT categories, arg_max(spec_id, created_at) AS spec_id
    FROM specs_all
    WHERE detail = 'full'
    GROUP BY categories
)
SELECT
    a.answer_id AS row_id, a.text_id, n.spec_id, a.cited, a.cited_unknown, a.reasoning, a.answer
FROM answers AS a
JOIN cases_once AS c USING (case_id)
LEFT JOIN newest AS n USING (categories)
ANTI JOIN (FROM findings WHERE kind = 'answers' AND monitoring_id = $monitoring_id) AS f
    ON f.row_id = a.answer_id AND f.text_id = a.text_id
WHERE a.reasoning <> '' AND a.probe = 'none';
