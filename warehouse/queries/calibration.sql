-- Precision and recall of a judge at each threshold and number of grades, against gold graders; also
-- of every jury of two or three judges that grade the same answers, at k grades of each, of which the
-- lowest counts. A judge accepts an answer if all of its first k grades were read and none is under
-- the threshold. A gold grader that goes by the reasoning is gold for judges alone that were shown it
-- too. Of a judge with several criteria, each stands in rows of its own; the lowest of them, which
-- counts, has none. `low` and `high` bound precision, `recall_low` and `recall_high` recall: Wilson's
-- 95 % intervals, which count prompts, not answers, as independent. `tokens` is what the grades of an
-- answer cost, in output tokens; `tokens_racing` is what they would cost in a race, which asks judges
-- one after the other, those with the shortest grades first, each for one grade and then for the rest,
-- until one is under the threshold. Both are means over the answers that were graded.
WITH votes AS MATERIALIZED (
    SELECT
        answer_id, grading_context_id, grader, sample_index, num_output_tokens AS tokens,
        -- A rating of 0.7 may be 0.6999999999999999.
        floor(list_filter(scores, lambda score: score.name = 'rating')[1].value * 10 + 1e-9)::BIGINT
            AS rating
    FROM run_grades
),
criterion_votes AS (
    SELECT
        answer_id, grading_context_id, grader, sample_index, name,
        floor(value * 10 + 1e-9)::BIGINT AS rating
    FROM run_scores
    WHERE starts_with(name, 'rating_')
),
lengths AS (
    SELECT grader, avg(tokens) AS mean_tokens
    FROM votes
    GROUP BY grader
),
judges AS (
    SELECT
        r.grader, r.saw, r.num_votes,
        row_number() OVER (ORDER BY l.mean_tokens NULLS LAST, r.grader) AS place
    FROM run_graders AS r
    LEFT JOIN lengths AS l USING (grader)
    WHERE r.reduce = 'rating'
),
juries AS (
    SELECT [grader] AS jury FROM judges
    UNION ALL
    SELECT [a.grader, b.grader] FROM judges AS a, judges AS b WHERE a.place < b.place
    UNION ALL
    SELECT [a.grader, b.grader, c.grader]
    FROM judges AS a, judges AS b, judges AS c
    WHERE a.place < b.place AND b.place < c.place
),
seats AS (
    SELECT
        s.jury, j.grader, j.place, j.saw,
        min(j.num_votes) OVER (PARTITION BY s.jury) AS num_votes
    FROM (SELECT jury, unnest(jury) AS grader FROM juries) AS s
    JOIN judges AS j USING (grader)
),
-- The answers that every judge of a jury was to grade.
judged AS MATERIALIZED (
    SELECT
        s.jury, g.answer_id, g.grading_context_id, any_value(g.prompt_id) AS prompt_id,
        any_value(s.num_votes) AS num_votes, list(DISTINCT s.saw) AS saw
    FROM seats AS s
    JOIN graded AS g USING (grader)
    WHERE g.score = 'good' AND g.answer_id IS NOT NULL
    GROUP BY s.jury, g.answer_id, g.grading_context_id
    HAVING count(DISTINCT s.grader) = len(any_value(s.jury))
),
asked AS MATERIALIZED (
    SELECT
        j.jury, k.k, j.answer_id, j.grading_context_id, v.tokens, v.rating,
        -- The lowest of the grades before it; while there is none, nothing has rejected the answer.
        -- All grades of a judge after its first are asked for together.
        coalesce(min(v.rating) OVER (
            PARTITION BY j.jury, k.k, j.answer_id, j.grading_context_id
            ORDER BY s.place, v.sample_index > 0
            GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ), 10) AS lowest_before
    FROM judged AS j
    CROSS JOIN range(1, j.num_votes + 1) AS k (k)
    JOIN seats AS s USING (jury)
    JOIN votes AS v
        ON v.answer_id = j.answer_id
       AND v.grading_context_id = j.grading_context_id
       AND v.grader = s.grader
       AND v.sample_index < k.k
),
wanted AS (
    SELECT
        jury, k.k, NULL AS criterion, answer_id, grading_context_id, prompt_id, saw,
        k.k * len(jury) AS num_grades
    FROM judged
    CROSS JOIN range(1, num_votes + 1) AS k (k)
),
lowest AS (
    SELECT
        w.jury, w.k, w.criterion, w.answer_id, w.prompt_id, w.saw,
        -- An answer with a missing grade is never accepted.
        if(count(a.rating) = w.num_grades, min(a.rating), -1) AS rating
    FROM wanted AS w
    LEFT JOIN asked AS a USING (jury, k, answer_id, grading_context_id)
    GROUP BY
        w.jury, w.k, w.criterion, w.answer_id, w.grading_context_id, w.prompt_id, w.saw, w.num_grades
    UNION ALL
    SELECT
        w.jury, w.k, substr(n.name, len('rating_') + 1), w.answer_id, w.prompt_id, w.saw,
        if(count(v.rating) = w.num_grades, min(v.rating), -1)
    FROM wanted AS w
    JOIN (SELECT DISTINCT grader, name FROM criterion_votes) AS n ON w.jury = [n.grader]
    LEFT JOIN criterion_votes AS v
        ON v.answer_id = w.answer_id
       AND v.grading_context_id = w.grading_context_id
       AND v.grader = n.grader
       AND v.name = n.name
       AND v.sample_index < w.k
    GROUP BY w.jury, w.k, n.name, w.answer_id, w.grading_context_id, w.prompt_id, w.saw, w.num_grades
),
golden AS (
    SELECT g.grader AS gold, r.saw, g.answer_id, avg(g.value) >= 0.5 AS is_right
    FROM graded AS g
    JOIN run_graders AS r USING (grader)
    WHERE g.score = 'right' AND g.value IS NOT NULL AND g.probe = 'none'
    GROUP BY ALL
),
rated AS (
    SELECT l.jury, l.criterion, g.gold, l.k, l.prompt_id, l.rating, g.is_right, count(*) AS num
    FROM lowest AS l
    JOIN golden AS g
        ON g.answer_id = l.answer_id
       AND NOT list_contains(l.jury, g.gold)
       AND (g.saw = 'answer' OR l.saw = [g.saw])
    GROUP BY ALL
),
thresholds AS (
    FROM range(1, 11) AS t (threshold)
),
counted AS (
    SELECT
        r.jury, r.criterion, r.gold, t.threshold, r.k,
        coalesce(sum(num) FILTER (rating >= threshold), 0)::BIGINT AS num_accepted,
        coalesce(sum(num) FILTER (is_right), 0)::BIGINT AS num_gold,
        coalesce(sum(num) FILTER (is_right AND rating >= threshold), 0)::BIGINT AS num_both,
        count(DISTINCT prompt_id) FILTER (rating >= threshold) AS num_accepted_prompts,
        count(DISTINCT prompt_id) FILTER (is_right) AS num_gold_prompts,
        sum(num)::BIGINT AS num_answers
    FROM rated AS r
    CROSS JOIN thresholds AS t
    GROUP BY ALL
),
sizes AS (
    SELECT jury, count(*) AS num_judged
    FROM judged
    SEMI JOIN votes USING (answer_id, grading_context_id)
    GROUP BY jury
),
spent AS (
    SELECT
        a.jury, a.k, t.threshold,
        if(count(a.tokens) = count(*), sum(a.tokens), NULL) / any_value(s.num_judged) AS tokens,
        if(
            count(a.tokens) = count(*),
            coalesce(sum(a.tokens) FILTER (a.lowest_before >= t.threshold), 0),
            NULL
        ) / any_value(s.num_judged) AS tokens_racing
    FROM asked AS a
    JOIN sizes AS s USING (jury)
    CROSS JOIN thresholds AS t
    GROUP BY a.jury, a.k, t.threshold
),
shares AS (
    SELECT
        c.*, s.tokens,
        if(c.criterion IS NULL, s.tokens_racing, NULL) AS tokens_racing,
        num_both / nullif(num_accepted, 0) AS precision,
        num_both / nullif(num_gold, 0) AS recall,
        wilson(precision, num_accepted_prompts) AS precision_bounds,
        wilson(recall, num_gold_prompts) AS recall_bounds
    FROM counted AS c
    LEFT JOIN spent AS s USING (jury, k, threshold)
)
SELECT
    array_to_string(jury, ' + ') AS grader, criterion, gold, threshold, k,
    round(precision, 4) AS precision,
    round(precision_bounds.low, 4) AS low,
    round(precision_bounds.high, 4) AS high,
    round(recall, 4) AS recall,
    round(recall_bounds.low, 4) AS recall_low,
    round(recall_bounds.high, 4) AS recall_high,
    round(2 * num_both / nullif(num_accepted + num_gold, 0), 4) AS f1,
    num_accepted, num_gold, num_answers,
    round(tokens, 1) AS tokens,
    round(tokens_racing, 1) AS tokens_racing,
    len(jury) AS num_judges
FROM shares
ORDER BY num_judges, grader, criterion NULLS FIRST, gold, k, threshold;
