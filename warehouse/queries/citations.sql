-- Citations of every rule, those never cited included; then cited ids that no rule has.
WITH shown AS (
    SELECT DISTINCT unnest(s.rule_ids) AS rule_id, spec_key(s.categories) AS category
    FROM specs AS s
    SEMI JOIN (
        SELECT spec_id FROM completions
        UNION
        -- Traces have a spec by their verdicts alone.
        SELECT spec_id FROM verdicts
    ) AS c USING (spec_id)
),
cited AS (
    SELECT unnest(c.cited) AS rule_id, v.verdict
    FROM completions AS c LEFT JOIN verdicts AS v USING (completion_id)
),
invented AS (
    SELECT unnest(c.cited_unknown) AS rule_id, v.verdict
    FROM completions AS c LEFT JOIN verdicts AS v USING (completion_id)
),
counted AS (
    SELECT s.category, s.rule_id, true AS rule_exists, k.verdict
    FROM shown AS s LEFT JOIN cited AS k USING (rule_id)
    UNION ALL
    SELECT '', rule_id, false, coalesce(verdict, '') FROM invented
)
SELECT
    category,
    rule_id,
    rule_exists,
    count(verdict) AS num_cited,
    count(*) FILTER (verdict = 'accepted') AS num_accepted
FROM counted
GROUP BY ALL
ORDER BY rule_exists DESC, num_cited DESC, rule_id;
