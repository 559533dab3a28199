-- Cases of suites that lack answers of an arm. An answer made under the full spec of a category has
-- that spec in its id: `spec_keys` and `spec_ids` tell which spec each set of categories is shown.
CREATE OR REPLACE TEMP TABLE pending_units AS
WITH specs_shown AS (
    SELECT
        unnest($spec_keys::VARCHAR[]) AS block_key,
        unnest($spec_ids::VARCHAR[]) AS spec_id
),
suite_cases AS (
    SELECT DISTINCT case_id, spec_key(categories) AS block_key
    FROM cases
    WHERE list_contains($suite_versions::VARCHAR[], suite_version)
),
slots AS (
    SELECT
        c.case_id, c.block_key, s.sample_index,
        content_id([
            c.case_id, $model, $answering_id, s.sample_index::VARCHAR, coalesce(p.spec_id, '')
        ]) AS answer_id
    FROM suite_cases AS c
    LEFT JOIN specs_shown AS p USING (block_key),
        (SELECT unnest(range($samples)) AS sample_index) AS s
),
-- Suites may share a case under other categories: one answer serves them all.
missing AS (
    SELECT DISTINCT ON (s.answer_id)
        s.case_id, s.block_key, s.sample_index, coalesce(a.attempt + 1, 0) AS attempt
    FROM slots AS s
    LEFT JOIN answers AS a USING (answer_id)
    WHERE a.answer_id IS NULL
        OR (a.status = 'error' AND a.attempt < $retries)
    ORDER BY s.answer_id, s.block_key
)
SELECT
    block_key, case_id,
    list(sample_index ORDER BY sample_index) AS sample_indices,
    list(attempt ORDER BY sample_index) AS attempts
FROM missing
GROUP BY block_key, case_id;

SELECT
    u.block_key, u.case_id, c.messages,
    list_filter(string_split(u.block_key, '+'), lambda name: name <> '') AS categories,
    c.sanitised, u.sample_indices, u.attempts
FROM pending_units AS u
JOIN (SELECT DISTINCT ON (case_id) case_id, messages, sanitised FROM cases) AS c USING (case_id)
ORDER BY u.block_key, u.case_id;
