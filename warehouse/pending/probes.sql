-- Answers of an arm to bare cases whose reasoning is still to be tampered with. `plain_id` is the
-- arm's answering_id, `answering_id` that of the probe. Of `rule_ids`, `rule_categories` tells the
-- policies; of `spec_keys`, `spec_ids` tells the specs that answers have in their ids.
CREATE OR REPLACE TEMP TABLE pending_units AS
WITH specs_shown AS (
    SELECT
        unnest($spec_keys::VARCHAR[]) AS block_key,
        unnest($spec_ids::VARCHAR[]) AS spec_id
),
rules AS (
    SELECT
        unnest($rule_ids::VARCHAR[]) AS rule_id,
        unnest($rule_categories::VARCHAR[]) AS category
),
candidates AS (
    SELECT DISTINCT ON (a.answer_id)
        a.answer_id, a.case_id, a.decision, a.cited[1] AS rule_id,
        spec_key(c.categories) AS block_key, c.categories, p.spec_id
    FROM answers AS a
    JOIN cases AS c USING (case_id)
    LEFT JOIN specs_shown AS p ON p.block_key = spec_key(c.categories)
    WHERE a.model = $model
        AND a.answering_id = $plain_id
        AND a.sample_index = 0
        AND a.status = 'ok'
        AND a.reasoning <> ''
        AND c.attack = 'none'
        AND list_contains($suite_versions::VARCHAR[], c.suite_version)
        -- Answers under a spec that has changed since stay as they are.
        AND (NOT $shows_category OR a.spec_id IS NOT DISTINCT FROM p.spec_id)
    ORDER BY a.answer_id
    LIMIT $limit
),
numbered AS (
    SELECT *, row_number() OVER (ORDER BY answer_id) AS number, count(*) OVER () AS size
    FROM candidates
),
-- The next answer that came to another decision; after the last one comes the first.
swapped AS (
    SELECT n.answer_id, arg_min(o.answer_id, (o.number - n.number + n.size) % n.size) AS other_id
    FROM numbered AS n
    JOIN numbered AS o ON o.decision <> n.decision
    GROUP BY n.answer_id
),
probed AS (
    SELECT
        n.block_key, n.case_id, n.rule_id,
        CASE WHEN $probe = 'swapped' THEN s.other_id ELSE n.answer_id END AS reasoning_of,
        content_id([
            n.case_id, $model, $answering_id, '0', coalesce(n.spec_id, '')
        ]) AS answer_id
    FROM numbered AS n
    LEFT JOIN swapped AS s USING (answer_id)
    LEFT JOIN rules AS r ON r.rule_id = n.rule_id
    WHERE ($probe <> 'swapped' OR s.other_id IS NOT NULL)
        AND ($probe <> 'edited' OR list_contains(n.categories, r.category))
)
SELECT
    p.block_key, p.case_id, p.rule_id, p.reasoning_of,
    [0] AS sample_indices, [coalesce(a.attempt + 1, 0)] AS attempts
FROM probed AS p
LEFT JOIN answers AS a USING (answer_id)
WHERE a.answer_id IS NULL
    OR (a.status = 'error' AND a.attempt < $retries);

SELECT
    u.block_key, u.case_id, c.messages,
    list_filter(string_split(u.block_key, '+'), lambda name: name <> '') AS categories,
    c.sanitised, a.reasoning, u.rule_id, u.sample_indices, u.attempts
FROM pending_units AS u
JOIN answers AS a ON a.answer_id = u.reasoning_of
JOIN (SELECT DISTINCT ON (case_id) case_id, messages, sanitised FROM cases) AS c
    ON c.case_id = u.case_id
ORDER BY u.block_key, u.case_id;
