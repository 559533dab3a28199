-- What the reviews of each current completion come to: the decision of most reviewers counts. As many
-- who accept as who reject are `disputed`, which another reviewer settles; `unsure` counts for nobody.
CREATE VIEW reviewed AS
SELECT
    completion_id,
    count(*) AS num_reviews,
    count(*) FILTER (decision = 'accept') AS num_accepting,
    count(*) FILTER (decision = 'reject') AS num_rejecting,
    list(reviewer ORDER BY reviewer) AS reviewers,
    CASE
        WHEN num_accepting > num_rejecting THEN 'accepted'
        WHEN num_rejecting > num_accepting THEN 'rejected'
        WHEN num_accepting > 0 THEN 'disputed'
        ELSE 'unsure'
    END AS review_verdict
FROM reviews
GROUP BY completion_id;

-- Acceptance of each category in the latest refresh that judged twenty or more texts of it, and over
-- all refreshes before it, if those did so too.
CREATE VIEW category_drift AS
WITH touched AS (
    SELECT DISTINCT run_id, prompt_id, text_id, spec_id, judging_id
    FROM judgements_once
    -- Scores that came with traces are not of this judge.
    WHERE spec_id IS NOT NULL
),
judged AS (
    SELECT
        t.run_id, t.prompt_id, t.text_id, t.spec_id,
        min(j.score) AS lowest,
        count(j.score) AS num_read,
        bool_or(j.score IS NOT NULL) AS is_judged
    FROM touched AS t
    JOIN judgements_once AS j USING (prompt_id, text_id, spec_id, judging_id)
    GROUP BY ALL
),
refreshes AS (
    SELECT
        array_to_string(s.categories, '+') AS category, r.run_id, r.started_at,
        count(*) AS num_judged,
        count(*) FILTER (j.lowest >= r.threshold AND j.num_read >= r.num_judgements) AS num_accepted
    FROM judged AS j
    JOIN runs AS r USING (run_id)
    JOIN specs AS s USING (spec_id)
    WHERE r.flow = 'refresh'
    GROUP BY ALL
),
ordered AS (
    SELECT
        *, row_number() OVER (PARTITION BY category ORDER BY started_at DESC, run_id) AS place
    FROM refreshes
    WHERE num_judged >= 20
),
compared AS (
    SELECT
        category,
        sum(num_judged) FILTER (place = 1)::BIGINT AS num_judged,
        sum(num_accepted) FILTER (place = 1) AS num_accepted,
        sum(num_judged) FILTER (place > 1)::BIGINT AS num_judged_before,
        sum(num_accepted) FILTER (place > 1) AS num_accepted_before
    FROM ordered
    GROUP BY category
    HAVING count(*) > 1
)
SELECT
    category,
    num_judged,
    round(num_accepted / num_judged, 4) AS acceptance,
    num_judged_before,
    round(num_accepted_before / num_judged_before, 4) AS acceptance_before
FROM compared;
