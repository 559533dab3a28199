-- Answers of arms in suites that lack grades of one grader. Of each arm, `models`, `answering_ids`
-- and `num_answers` tell which answers count; `spec_keys` and `spec_ids` tell which spec is part of
-- a grade's id.
CREATE OR REPLACE TEMP TABLE pending_units AS
WITH arms_to_grade AS (
    SELECT
        unnest($models::VARCHAR[]) AS model,
        unnest($answering_ids::VARCHAR[]) AS answering_id,
        unnest($num_answers::BIGINT[]) AS num_answers
),
specs_shown AS (
    SELECT
        unnest($spec_keys::VARCHAR[]) AS block_key,
        unnest($spec_ids::VARCHAR[]) AS spec_id
),
answered AS (
    SELECT DISTINCT ON (a.answer_id, c.grading_context_id)
        a.answer_id, a.text_id, c.grading_context_id, c.suite_version, c.case_id,
        spec_key(c.categories) AS block_key
    FROM answers AS a
    JOIN cases AS c USING (case_id)
    JOIN arms_to_grade AS m ON m.model = a.model AND m.answering_id = a.answering_id
    WHERE a.status = 'ok'
        AND a.sample_index < m.num_answers
        AND list_contains($suite_versions::VARCHAR[], c.suite_version)
    ORDER BY a.answer_id, c.grading_context_id, c.suite_version
),
slots AS (
    SELECT
        a.*, s.sample_index,
        content_id([
            a.answer_id, a.text_id, $grading_id, s.sample_index::VARCHAR,
            coalesce(p.spec_id, ''), a.grading_context_id
        ]) AS evaluation_id
    FROM answered AS a
    LEFT JOIN specs_shown AS p USING (block_key),
        (SELECT unnest(range($samples)) AS sample_index) AS s
),
missing AS (
    SELECT s.*, coalesce(e.attempt + 1, 0) AS attempt
    FROM slots AS s
    LEFT JOIN evaluations AS e USING (evaluation_id)
    WHERE e.evaluation_id IS NULL
        OR (e.status <> 'ok' AND e.attempt < $retries)
)
SELECT
    block_key, answer_id, grading_context_id, suite_version, case_id,
    list(sample_index ORDER BY sample_index) AS sample_indices,
    list(attempt ORDER BY sample_index) AS attempts
FROM missing
GROUP BY ALL;

SELECT
    u.block_key, u.answer_id, a.text_id, u.grading_context_id, c.original, c.categories,
    c.ideal_response, c.target, a.model, a.answer, a.reasoning, a.cited, u.sample_indices,
    u.attempts
FROM pending_units AS u
JOIN cases AS c ON c.suite_version = u.suite_version AND c.case_id = u.case_id
JOIN answers AS a ON a.answer_id = u.answer_id
ORDER BY u.block_key, u.answer_id;
