-- The completions that a person is to review next. Queues: `random`; `disagreement` (completions that
-- reviewers dispute, then those whose judge scores lie furthest apart); `threshold` (the lowest score
-- nearest to it); `rule` (reasoning that cites $rule); `drifted` (judgements that are held, then
-- categories whose acceptance moved by more than 0.1 between refreshes). What the person has reviewed,
-- or $num_wanted others have decided, is left out; what others have begun comes first.
WITH judged AS (
    -- A completion that several recipes judge has the best of its verdicts.
    SELECT completion_id, verdict, min_score, scores, threshold
    FROM verdicts
    QUALIFY row_number() OVER (
        PARTITION BY completion_id
        ORDER BY verdict_rank(verdict) DESC, judging_id, spec_id, threshold, num_judgements
    ) = 1
),
rows AS (
    SELECT
        c.completion_id, c.text_id, c.prompt_id, spec_key(p.categories) AS category, c.cited,
        coalesce(v.verdict, 'unjudged') AS verdict, v.min_score, coalesce(v.scores, []) AS scores,
        v.threshold,
        coalesce(r.num_reviews, 0) AS num_reviews,
        coalesce(r.num_accepting, 0) AS num_accepting,
        coalesce(r.num_rejecting, 0) AS num_rejecting,
        coalesce(r.review_verdict = 'disputed', false) AS is_disputed,
        list_max(v.scores) - list_min(v.scores) AS spread,
        abs(v.min_score - v.threshold) AS distance
    FROM completions AS c
    JOIN prompts_all AS p USING (prompt_id)
    LEFT JOIN judged AS v USING (completion_id)
    LEFT JOIN reviewed AS r USING (completion_id)
    WHERE c.status = 'ok'
      AND NOT coalesce(list_contains(r.reviewers, $reviewer), false)
),
shifted AS (
    SELECT category, acceptance, acceptance_before, abs(acceptance - acceptance_before) AS shift
    FROM category_drift
    WHERE shift > 0.1
),
queued AS (
    SELECT
        r.*,
        CASE $queue
            WHEN 'random' THEN 0.0
            WHEN 'rule' THEN CASE WHEN list_contains(r.cited, $rule) THEN 0.0 END
            WHEN 'threshold' THEN r.distance
            WHEN 'disagreement' THEN CASE
                WHEN r.is_disputed THEN -100.0
                WHEN r.spread > 0 THEN -r.spread
            END
            WHEN 'drifted' THEN CASE WHEN r.verdict = 'held' THEN -1.0 ELSE -s.shift END
        END AS place,
        CASE
            WHEN $queue = 'disagreement' AND r.is_disputed
                THEN format('reviewers disagree: {} accept, {} reject', num_accepting, num_rejecting)
            WHEN $queue = 'disagreement'
                THEN format('scores from {:g} to {:g}', list_min(scores), list_max(scores))
            WHEN $queue = 'threshold'
                THEN format('lowest score {:g} at threshold {:g}', r.min_score, r.threshold)
            WHEN $queue = 'rule' THEN 'cites ' || $rule
            WHEN $queue = 'drifted' AND r.verdict = 'held' THEN 'its judgements are held'
            WHEN $queue = 'drifted'
                THEN format('acceptance {:.2f}, before {:.2f}', s.acceptance, s.acceptance_before)
            ELSE 'drawn at random'
        END AS why
    FROM rows AS r
    LEFT JOIN shifted AS s ON $queue = 'drifted' AND s.category = r.category
)
SELECT
    completion_id, text_id, prompt_id, category, verdict, min_score, scores, threshold, num_reviews,
    num_accepting, num_rejecting, why
FROM queued
WHERE place IS NOT NULL
  AND (
    num_accepting + num_rejecting < $num_wanted
    OR ($queue = 'disagreement' AND is_disputed)
  )
-- Ids are hashes: a fair draw, and the same for all reviewers, who are to meet on the same rows.
ORDER BY num_reviews > 0 DESC, place, md5(completion_id)
LIMIT $limit;
