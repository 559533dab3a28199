-- Counts from rows of the sources to examples, with the number of those left behind by each reason.
-- A stage has the rows of the one before it without those; of a prompt, several completions are
-- generated.
WITH latest AS (
    SELECT
        recipe, num_samples, figures,
        -- A run in progress has its set in the figures alone.
        coalesce(set_id, figures->>'$.curate.set_id') AS set_id
    FROM latest_plans
),
sources AS (
    SELECT s.value AS counts, false AS of_traces
    FROM latest, json_each(figures->'collect') AS s
    UNION ALL
    SELECT t.value, true
    FROM latest, json_each(figures->'traces') AS t
),
uncollected AS (
    SELECT c.key AS reason, (c.value->>'$')::BIGINT AS num_rows
    FROM sources, json_each(counts) AS c
    WHERE c.key IN (
        'unassigned', 'exact_duplicates', 'near_duplicates', 'contaminated', 'conflicting',
        'left_out'
    )
    UNION ALL
    SELECT b.key, (b.value->>'$')::BIGINT
    FROM sources, json_each(counts->'bad') AS b
    UNION ALL
    SELECT a.key, (a.value->>'$')::BIGINT
    FROM latest, json_each(figures->'assigned') AS a
    WHERE a.key <> 'ok'
),
-- A completion that several recipes judge has the best of its verdicts.
ranked AS (
    SELECT *, verdict_rank(verdict) AS place
    FROM verdicts
),
parts AS (
    SELECT
        c.completion_id,
        any_value(c.prompt_id) AS prompt_id,
        any_value(c.status) AS status,
        any_value(c.spec_id) IS NULL AS is_trace,
        coalesce(arg_max(v.verdict, v.place), 'unjudged') AS verdict,
        arg_max(v.threshold, v.place) AS threshold
    FROM completions AS c
    LEFT JOIN ranked AS v USING (completion_id)
    GROUP BY c.completion_id
),
curated AS (
    SELECT DISTINCT
        e.completion_id, e.status = 'chosen' AS is_chosen, e.reason,
        p.verdict = 'accepted' AS is_accepted
    FROM examples AS e
    JOIN latest AS l USING (set_id)
    JOIN parts AS p USING (completion_id)
    -- People may accept what the judge does not.
    WHERE p.verdict = 'accepted'
       OR completion_id IN (SELECT completion_id FROM reviewed WHERE review_verdict = 'accepted')
),
counts AS (
    SELECT
        (SELECT count(*) FROM latest) AS num_recipes,
        (SELECT any_value(num_samples) FROM latest) AS num_samples,
        (SELECT sum((counts->>'read')::BIGINT) FROM sources) AS num_read,
        coalesce((SELECT sum(num_rows) FROM uncollected), 0) AS num_uncollected,
        (SELECT count(DISTINCT prompt_id) FROM parts) AS num_asked,
        (SELECT count(*) FROM parts) AS num_generated,
        (SELECT count(*) FROM parts WHERE NOT is_trace) AS num_samples_made,
        coalesce(
            (
                SELECT sum((counts->>'kept')::BIGINT + (counts->>'to_assign')::BIGINT)
                FROM sources
                WHERE of_traces
            ), 0
        ) AS num_traces,
        (SELECT count(*) FROM parts WHERE verdict = 'accepted') AS num_accepted,
        (SELECT count(*) FROM curated WHERE is_accepted) AS num_curated
),
totals AS (
    SELECT
        *,
        num_read - num_uncollected AS num_wanted,
        -- Of several recipes, a prompt that they share counts once.
        if(num_recipes = 1, greatest(num_wanted, num_asked), num_asked) AS num_prompts
    FROM counts
),
stages AS (
    SELECT 0 AS position, 'read' AS stage, num_read AS num_rows
    FROM totals
    WHERE num_read IS NOT NULL
    UNION ALL
    SELECT 1, 'prompts', num_prompts FROM totals
    UNION ALL
    SELECT 2, 'generated', num_generated FROM totals
    UNION ALL
    SELECT 3, 'parsed', count(*) FROM parts WHERE status = 'ok'
    UNION ALL
    SELECT 4, 'judged', count(*)
    FROM parts
    WHERE verdict IN ('accepted', 'rejected', 'held')
    UNION ALL
    SELECT 5, 'accepted', num_accepted FROM totals
    UNION ALL
    SELECT 6, 'examples', (SELECT count(*) FROM curated WHERE is_chosen)
    FROM totals
    WHERE EXISTS (FROM latest WHERE set_id IS NOT NULL)
),
lost AS (
    SELECT 1 AS position, reason, sum(num_rows) AS num_rows FROM uncollected GROUP BY ALL
    UNION ALL
    SELECT 1, 'more from earlier runs', num_asked - num_wanted FROM totals
    UNION ALL
    SELECT 1, 'shared by recipes or not generated yet', num_wanted - num_asked
    FROM totals
    WHERE num_recipes > 1
    UNION ALL
    SELECT 2, 'not generated yet', (num_prompts - num_traces) * num_samples - num_samples_made
    FROM totals
    WHERE num_recipes = 1 AND num_wanted >= num_asked
    UNION ALL
    SELECT 3, status, count(*) FROM parts WHERE status <> 'ok' GROUP BY ALL
    UNION ALL
    SELECT 4, 'unjudged', count(*) FROM parts WHERE status = 'ok' AND verdict = 'unjudged'
    UNION ALL
    SELECT 5, 'held for approval', count(*) FROM parts WHERE verdict = 'held'
    UNION ALL
    SELECT 5, format('under the threshold {:g}', threshold), count(*)
    FROM parts
    WHERE verdict = 'rejected'
    GROUP BY threshold
    UNION ALL
    SELECT 6, reason, count(*) FROM curated WHERE NOT is_chosen GROUP BY ALL
    UNION ALL
    SELECT 6, 'not curated yet', num_accepted - num_curated FROM totals
    UNION ALL
    SELECT 6, 'more that reviews accept', count(*) FROM curated WHERE NOT is_accepted
),
reasons AS (
    SELECT
        position,
        string_agg(num_rows || ' ' || reason, ', ' ORDER BY num_rows DESC, reason) AS left_behind
    FROM lost
    WHERE num_rows > 0
    GROUP BY position
)
SELECT stage, num_rows::BIGINT AS num_rows, coalesce(left_behind, '') AS left_behind
FROM stages LEFT JOIN reasons USING (position)
ORDER BY position;
