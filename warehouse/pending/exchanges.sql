-- Harmful prompts of a suite without a tree of exchanges, or whose tree met an engine error. The
-- first exchange of a tree bears the id that stands for the tree.
CREATE OR REPLACE TEMP TABLE pending_units AS
WITH goals AS (
    SELECT DISTINCT ON (prompt_id)
        prompt_id, suite_version, case_id, spec_key(categories) AS block_key
    FROM cases
    WHERE suite_version = $suite_version AND ideal_response <> 'comply'
    ORDER BY prompt_id, case_id
    LIMIT $limit
)
SELECT
    g.block_key, g.prompt_id, g.suite_version, g.case_id,
    coalesce(e.attempt + 1, 0) AS attempt,
    [0] AS sample_indices
FROM goals AS g
LEFT JOIN exchanges AS e
    ON e.exchange_id = content_id([$model, $attacking_id, g.prompt_id])
WHERE e.exchange_id IS NULL
    OR (e.status = 'error' AND e.attempt < $retries);

SELECT
    u.block_key, u.prompt_id, c.original AS messages, c.categories, c.ideal_response, u.attempt
FROM pending_units AS u
JOIN cases AS c USING (suite_version, case_id)
ORDER BY u.block_key, u.prompt_id;
