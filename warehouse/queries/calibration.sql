-- Precision and recall of a judge at each threshold and number of grades, against gold graders. It
-- accepts an answer if all of its first k grades were read and none is under the threshold. A gold
-- grader that goes by the reasoning is gold for judges alone that were shown it too.
WITH judged AS (
    SELECT DISTINCT g.answer_id, g.grading_context_id, g.grader, r.saw, k.k
    FROM graded AS g
    JOIN run_graders AS r USING (grader),
        range(1, r.num_votes + 1) AS k (k)
    WHERE g.score = 'good' AND r.reduce = 'rating' AND g.answer_id IS NOT NULL
),
lowest AS (
    SELECT
        j.answer_id, j.grader, j.saw, j.k,
        -- An answer with a missing grade is never accepted.
        if(count(v.value) = j.k, floor(min(v.value) * 10 + 1e-9), -1)::BIGINT AS rating
    FROM judged AS j
    LEFT JOIN run_scores AS v
        ON v.answer_id = j.answer_id
       AND v.grading_context_id = j.grading_context_id
       AND v.grader = j.grader
       AND v.name = 'rating'
       AND v.sample_index < j.k
    GROUP BY j.answer_id, j.grading_context_id, j.grader, j.saw, j.k
),
golden AS (
    SELECT g.grader AS gold, r.saw, g.answer_id, avg(g.value) >= 0.5 AS is_right
    FROM graded AS g
    JOIN run_graders AS r USING (grader)
    WHERE g.score = 'right' AND g.value IS NOT NULL AND g.probe = 'none'
    GROUP BY ALL
),
rated AS (
    SELECT l.grader, g.gold, l.k, l.rating, g.is_right, count(*) AS num
    FROM lowest AS l
    JOIN golden AS g
        ON g.answer_id = l.answer_id
       AND g.gold <> l.grader
       AND g.saw IN ('answer', l.saw)
    GROUP BY ALL
),
counted AS (
    SELECT
        r.grader, r.gold, t.threshold, r.k,
        coalesce(sum(num) FILTER (rating >= threshold), 0)::BIGINT AS num_accepted,
        coalesce(sum(num) FILTER (is_right), 0)::BIGINT AS num_gold,
        coalesce(sum(num) FILTER (is_right AND rating >= threshold), 0) AS num_both,
        sum(num)::BIGINT AS num_answers
    FROM rated AS r
    CROSS JOIN range(1, 11) AS t (threshold)
    GROUP BY ALL
)
SELECT
    grader, gold, threshold, k,
    round(num_both / nullif(num_accepted, 0), 4) AS precision,
    round(num_both / nullif(num_gold, 0), 4) AS recall,
    round(2 * num_both / nullif(num_accepted + num_gold, 0), 4) AS f1,
    num_accepted, num_gold, num_answers
FROM counted
ORDER BY grader, gold, k, threshold;
