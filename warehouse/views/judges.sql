-- How far one judge's scores of the same completion lie apart, and whether they straddle the threshold:
-- of its score as a whole and, if it scores several criteria, of each.
CREATE VIEW judge_spreads AS
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
)
SELECT
    completion_id, judge, criterion, min(score) AS min_score,
    max(score) - min(score) AS spread,
    max(score) >= threshold AND min(score) < threshold AS is_split
FROM scores
GROUP BY completion_id, spec_id, judge_id, judge, criterion, threshold
HAVING count(*) >= 2;

-- What each judge of a jury says of each completion: 1 accepts it, 0 rejects it, null is undecided.
CREATE VIEW jury_votes AS
WITH seats AS (
    SELECT DISTINCT judging_id, judge_id, num_each, num_judges
    FROM judges
    WHERE num_judges > 1
)
SELECT
    s.judging_id, s.judge_id, s.num_judges, v.completion_id, v.spec_id,
    any_value(j.model) AS judge,
    CASE
        WHEN min(j.score) < v.threshold THEN 0
        WHEN count(j.score) >= s.num_each THEN 1
    END AS accepts
FROM verdicts AS v
JOIN seats AS s USING (judging_id)
LEFT JOIN votes AS j
    ON j.completion_id = v.completion_id
   AND j.spec_id = v.spec_id
   AND j.judging_id = v.judging_id
   AND j.judge_id = s.judge_id
   AND j.num_each = s.num_each
WHERE v.num_judgements = s.num_each * s.num_judges
GROUP BY s.judging_id, s.judge_id, s.num_judges, s.num_each, v.completion_id, v.spec_id,
    v.threshold;
