-- Agreement of each two reviewers, and of each reviewer with the judge of each recipe, on the
-- completions that both decided: also beyond chance (Cohen's kappa). Who is unsure has not decided.
WITH decided AS (
    SELECT 1 AS kind, reviewer AS name, completion_id, decision = 'accept' AS accepts
    FROM reviews
    WHERE decision <> 'unsure'
    UNION ALL
    SELECT 2, 'judge of ' || p.recipe, v.completion_id, bool_and(v.accepted)
    FROM verdicts AS v
    JOIN completions AS c USING (completion_id)
    JOIN plans AS p
        ON p.generation_id = c.generation_id
       AND p.spec_id = v.spec_id
       AND p.judging_id = v.judging_id
       AND p.num_judgements = v.num_judgements
       AND p.threshold = v.threshold
    WHERE v.verdict IN ('accepted', 'rejected')
    GROUP BY p.recipe, v.completion_id
),
pairs AS (
    SELECT
        a.name AS reviewer, b.kind, b.name AS other,
        count(*) AS num_shared,
        count(*) FILTER (a.accepts AND b.accepts) AS num_both_accept,
        count(*) FILTER (NOT a.accepts AND NOT b.accepts) AS num_both_reject,
        avg((a.accepts = b.accepts)::INT) AS agreement,
        avg(a.accepts::INT) AS share,
        avg(b.accepts::INT) AS other_share
    FROM decided AS a
    JOIN decided AS b
        ON b.completion_id = a.completion_id
       AND (b.kind > a.kind OR b.name > a.name)
    WHERE a.kind = 1
    GROUP BY ALL
),
expected AS (
    SELECT *, share * other_share + (1 - share) * (1 - other_share) AS by_chance
    FROM pairs
)
SELECT
    reviewer, other, num_shared, num_both_accept, num_both_reject,
    round(agreement, 4) AS agreement,
    round((agreement - by_chance) / nullif(1 - by_chance, 0), 4) AS kappa
FROM expected
ORDER BY kind, reviewer, other;
