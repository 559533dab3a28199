-- The judges of a jury side by side, by the completions that all of them judged: how often each
-- rejects, and alone; how far it agrees with the others, also beyond chance (the mean of Cohen's
-- kappas); and for how many independent judges they stand.

-- A judge rejects a completion if one of its scores is under the threshold, and accepts it if all of
-- its samples were read and none is. `independent` is n / (1 + (n - 1) r) of n judges whose votes
-- correlate by r, the mean over pairs: 1 if all vote alike, n if they vote independently. Judges that
-- are right vote alike as well, so that it is a lower bound. A jury that races asks later judges about
-- no completion that an earlier one rejected: judge some prompts with judge.mode = "full" to compare
-- them fairly.
WITH named AS (
    SELECT judging_id, judge_id, any_value(judge) AS judge, count(accepts) AS num_judged
    FROM jury_votes
    GROUP BY ALL
),
shared AS (
    SELECT
        *,
        count(*) FILTER (accepts = 0) OVER (PARTITION BY judging_id, completion_id, spec_id)
            AS num_rejecting
    FROM jury_votes
    QUALIFY count(accepts) OVER (PARTITION BY judging_id, completion_id, spec_id) = num_judges
),
alone AS (
    SELECT
        judging_id, judge_id, num_judges,
        count(*) AS num_shared,
        count(*) FILTER (accepts = 0) AS num_rejected,
        count(*) FILTER (accepts = 0 AND num_rejecting = 1) AS num_rejected_alone
    FROM shared
    GROUP BY ALL
),
pairs AS (
    SELECT
        a.judging_id, a.judge_id, b.judge_id AS other_id,
        avg((a.accepts = b.accepts)::INT) AS agreement,
        avg(a.accepts) * avg(b.accepts) + (1 - avg(a.accepts)) * (1 - avg(b.accepts)) AS by_chance,
        -- Of a judge that always says the same, no correlation can be told.
        if(
            stddev_pop(a.accepts) * stddev_pop(b.accepts) > 0, corr(a.accepts, b.accepts), NULL
        ) AS correlation
    FROM shared AS a
    JOIN shared AS b USING (judging_id, completion_id, spec_id)
    WHERE a.judge_id <> b.judge_id
    GROUP BY ALL
),
agreeing AS (
    SELECT
        judging_id, judge_id,
        avg(agreement) AS agreement,
        avg((agreement - by_chance) / nullif(1 - by_chance, 0)) AS kappa
    FROM pairs
    GROUP BY ALL
),
correlated AS (
    -- Without any, there is none: greatest() would make 0 of it.
    SELECT judging_id, if(count(correlation) > 0, greatest(avg(correlation), 0), NULL) AS correlation
    FROM pairs
    GROUP BY ALL
)
SELECT
    n.judging_id,
    n.judge,
    n.num_judged,
    coalesce(a.num_shared, 0) AS num_shared,
    coalesce(a.num_rejected, 0) AS num_rejected,
    coalesce(a.num_rejected_alone, 0) AS num_rejected_alone,
    round(g.agreement, 4) AS agreement,
    round(g.kappa, 4) AS kappa,
    round(a.num_judges / (1 + (a.num_judges - 1) * c.correlation), 2) AS independent
FROM named AS n
LEFT JOIN alone AS a USING (judging_id, judge_id)
LEFT JOIN agreeing AS g USING (judging_id, judge_id)
LEFT JOIN correlated AS c USING (judging_id)
ORDER BY n.judging_id, n.judge;
