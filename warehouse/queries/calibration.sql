-- Precision and recall of a judge at each threshold and number of grades, against gold graders. It
-- accepts an answer if all of its first k grades were read and none is under the threshold. A gold
-- grader that goes by the reasoning is gold for judges alone that were shown it too. Of a judge with
-- several criteria, each stands in rows of its own; the lowest of them, which counts, has none.
WITH rated_by AS (
    SELECT answer_id, grading_context_id, grader, sample_index, name, value
    FROM run_scores
    WHERE name = 'rating' OR starts_with(name, 'rating_')
),
judged AS (
    SELECT DISTINCT g.answer_id, g.grading_context_id, g.grader, r.saw, n.name, k.k
    FROM graded AS g
    JOIN run_graders AS r USING (grader)
    JOIN (
        SELECT grader, name FROM rated_by
        UNION
        SELECT grader, 'rating' FROM run_graders
    ) AS n USING (grader),
        range(1, r.num_votes + 1) AS k (k)
    WHERE g.score = 'good' AND r.reduce = 'rating' AND g.answer_id IS NOT NULL
),
lowest AS (
    SELECT
        j.answer_id, j.grader, j.saw, j.k,
        nullif(substr(j.name, len('rating_') + 1), '') AS criterion,
        -- An answer with a missing grade is never accepted.
        if(count(v.value) = j.k, floor(min(v.value) * 10 + 1e-9), -1)::BIGINT AS rating
    FROM judged AS j
    LEFT JOIN rated_by AS v
        ON v.answer_id = j.answer_id
       AND v.grading_context_id = j.grading_context_id
       AND v.grader = j.grader
       AND v.name = j.name
       AND v.sample_index < j.k
    GROUP BY j.answer_id, j.grading_context_id, j.grader, j.saw, j.name, j.k
),
golden AS (
    SELECT g.grader AS gold, r.saw, g.answer_id, avg(g.value) >= 0.5 AS is_right
    FROM graded AS g
    JOIN run_graders AS r USING (grader)
    WHERE g.score = 'right' AND g.value IS NOT NULL AND g.probe = 'none'
    GROUP BY ALL
),
rated AS (
    SELECT l.grader, l.criterion, g.gold, l.k, l.rating, g.is_right, count(*) AS num
    FROM lowest AS l
    JOIN golden AS g
        ON g.answer_id = l.answer_id
       AND g.gold <> l.grader
       AND g.saw IN ('answer', l.saw)
    GROUP BY ALL
),
counted AS (
    SELECT
        r.grader, r.criterion, r.gold, t.threshold, r.k,
        coalesce(sum(num) FILTER (rating >= threshold), 0)::BIGINT AS num_accepted,
        coalesce(sum(num) FILTER (is_right), 0)::BIGINT AS num_gold,
        coalesce(sum(num) FILTER (is_right AND rating >= threshold), 0) AS num_both,
        sum(num)::BIGINT AS num_answers
    FROM rated AS r
    CROSS JOIN range(1, 11) AS t (threshold)
    GROUP BY ALL
)
SELECT
    grader, criterion, gold, threshold, k,
    round(num_both / nullif(num_accepted, 0), 4) AS precision,
    round(num_both / nullif(num_gold, 0), 4) AS recall,
    round(2 * num_both / nullif(num_accepted + num_gold, 0), 4) AS f1,
    num_accepted, num_gold, num_answers
FROM counted
ORDER BY grader, criterion NULLS FIRST, gold, k, threshold;
