-- Spread of one judge's scores of the same completion, and how often they straddle the threshold: of
-- its score as a whole and, if it scores several criteria, of each.
WITH given AS (
    SELECT
        judging_id, judge_id, model AS judge, completion_id, spec_id, sample_index,
        NULL AS criterion, score
    FROM votes
    -- Scores that came with traces are of different criteria.
    WHERE criterion IS NULL AND score IS NOT NULL
    UNION ALL
    SELECT * EXCLUDE (one), one.criterion, one.score
    FROM (
        SELECT
            judging_id, judge_id, model AS judge, completion_id, spec_id, sample_index,
            unnest(criteria) AS one
        FROM votes
    )
),
thresholds AS (
    SELECT DISTINCT completion_id, judging_id, threshold
    FROM verdicts
),
-- A judge may sit in several juries, and recipes may ask for different numbers of its samples.
scores AS (
    SELECT DISTINCT * EXCLUDE (judging_id)
    FROM given
    JOIN thresholds USING (completion_id, judging_id)
),
rows AS (
    SELECT
        judge, criterion, threshold, min(score) AS min_score,
        max(score) - min(score) AS spread,
        max(score) >= threshold AND min(score) < threshold AS is_split
    FROM scores
    GROUP BY completion_id, spec_id, judge_id, judge, criterion, threshold
    HAVING count(*) >= 2
)
SELECT
    judge,
    criterion,
    spread,
    count(*) AS num_completions,
    round(avg(min_score), 2) AS mean_min_score,
    count(*) FILTER (is_split) AS num_split_by_threshold
FROM rows
GROUP BY judge, criterion, spread
ORDER BY judge, criterion NULLS FIRST, spread;
