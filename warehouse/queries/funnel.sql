-- Counts from prompts to accepted completions, with the reasons why rows were left behind.
WITH parts AS (
    SELECT
        c.completion_id, c.status, v.verdict, coalesce(v.num_parsed, 0) AS num_parsed
    FROM completions AS c
    LEFT JOIN verdicts AS v USING (completion_id)
),
stages AS (
    SELECT 1 AS position, 'prompts' AS stage, count(DISTINCT prompt_id) AS num_rows FROM completions
    UNION ALL
    SELECT 2, 'generated', count(DISTINCT completion_id) FROM parts
    UNION ALL
    SELECT 3, 'parsed', count(DISTINCT completion_id) FROM parts WHERE status = 'ok'
    UNION ALL
    SELECT 4, 'judged', count(DISTINCT completion_id)
    FROM parts
    WHERE verdict IN ('accepted', 'rejected', 'held')
    UNION ALL
    SELECT 5, 'accepted', count(DISTINCT completion_id) FROM parts WHERE verdict = 'accepted'
),
lost AS (
    SELECT 3 AS position, status AS reason, count(DISTINCT completion_id) AS num_rows
    FROM parts WHERE status <> 'ok' GROUP BY ALL
    UNION ALL
    SELECT 4, 'unjudged', count(DISTINCT completion_id) FROM parts WHERE verdict = 'unjudged'
    UNION ALL
    SELECT 5, 'held for approval', count(DISTINCT completion_id) FROM parts WHERE verdict = 'held'
    UNION ALL
    SELECT 5, 'score under threshold', count(DISTINCT completion_id)
    FROM parts
    WHERE verdict = 'rejected'
),
reasons AS (
    SELECT
        position,
        string_agg(reason || ' ' || num_rows, ', ' ORDER BY num_rows DESC, reason) AS left_behind
    FROM lost
    WHERE num_rows > 0
    GROUP BY position
)
SELECT stage, num_rows, coalesce(left_behind, '') AS left_behind
FROM stages LEFT JOIN reasons USING (position)
ORDER BY position;
