-- Counts of the chosen completions from made to accepted and learned, with those left behind by each
-- reason.
WITH learned AS (
    SELECT DISTINCT completion_id
    FROM examples
    WHERE status = 'chosen'
),
counts AS (
    SELECT
        count(*) AS num_generated,
        count(*) FILTER (c.status = 'ok') AS num_parsed,
        count(*) FILTER (c.verdict IN ('accepted', 'rejected', 'held')) AS num_judged,
        count(*) FILTER (c.verdict = 'accepted') AS num_accepted,
        count(l.completion_id) AS num_learned
    FROM chosen_rows AS c
    LEFT JOIN learned AS l USING (completion_id)
),
stages AS (
    SELECT 1 AS position, 'generated' AS stage, num_generated AS num_rows FROM counts
    UNION ALL
    SELECT 2, 'parsed', num_parsed FROM counts
    UNION ALL
    SELECT 3, 'judged', num_judged FROM counts
    UNION ALL
    SELECT 4, 'accepted', num_accepted FROM counts
    UNION ALL
    SELECT 5, 'ever an example', num_learned FROM counts
),
lost AS (
    SELECT 2 AS position, status AS reason, count(*) AS num_rows
    FROM chosen_rows
    WHERE status <> 'ok'
    GROUP BY ALL
    UNION ALL
    SELECT 3, 'unjudged', count(*) FROM chosen_rows WHERE status = 'ok' AND verdict = 'unjudged'
    UNION ALL
    SELECT 4, 'held for approval', count(*) FROM chosen_rows WHERE verdict = 'held'
    UNION ALL
    SELECT 4, format('under the threshold {:g}', threshold), count(*)
    FROM chosen_rows
    WHERE verdict = 'rejected'
    GROUP BY threshold
    UNION ALL
    SELECT 5, 'never chosen', num_accepted - num_learned FROM counts
),
reasons AS (
    SELECT
        position,
        string_agg(num_rows || ' ' || reason, ', ' ORDER BY num_rows DESC, reason) AS left_behind
    FROM lost
    WHERE num_rows > 0
    GROUP BY position
)
SELECT stage, num_rows, coalesce(left_behind, '') AS left_behind
FROM stages LEFT JOIN reasons USING (position)
ORDER BY position;
