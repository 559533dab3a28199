-- Current rows that were made under these specs, by category.
WITH named AS (
    SELECT spec_id, spec_key(categories) AS category
    FROM specs
    WHERE list_contains($spec_ids, spec_id)
),
rows AS (
    SELECT 'completions' AS kind, spec_id FROM completions
    UNION ALL
    -- Completions may share a judgement.
    SELECT 'judgements', spec_id FROM (SELECT DISTINCT judgement_id, spec_id FROM judgements)
    UNION ALL
    SELECT 'examples', spec_id
    FROM examples
    WHERE status = 'chosen' AND set_id IN (SELECT set_id FROM plans)
    UNION ALL
    SELECT 'rollouts', spec_id FROM rollouts
    UNION ALL
    SELECT 'answers', spec_id FROM answers
    UNION ALL
    SELECT 'grades', spec_id FROM evaluations
)
SELECT
    category,
    count(*) FILTER (kind = 'completions') AS completions,
    count(*) FILTER (kind = 'judgements') AS judgements,
    count(*) FILTER (kind = 'examples') AS examples,
    count(*) FILTER (kind = 'rollouts') AS rollouts,
    count(*) FILTER (kind = 'answers') AS answers,
    count(*) FILTER (kind = 'grades') AS grades
FROM rows
JOIN named USING (spec_id)
GROUP BY category
ORDER BY category;
