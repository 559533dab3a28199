-- Replies of two models to the same case of a suite or the same prompt, with the mean of their grades,
-- of a completion its lowest score, from 0 to 1.
WITH answered AS (
    SELECT answer_id, case_id, sample_index, model, answering_id AS setting
    FROM answers
    WHERE (model, answering_id) IN (($left_model, $left_setting), ($right_model, $right_setting))
),
grades AS (
    SELECT answer_id, avg(value) AS grade
    FROM (
        SELECT answer_id, unnest(scores, recursive := true)
        FROM evaluations
        SEMI JOIN answered USING (answer_id)
    )
    GROUP BY answer_id
),
asked AS (
    SELECT DISTINCT ON (case_id)
        case_id, suite, attack, spec_key(categories) AS category,
        coalesce(ideal_response, 'unknown') AS ideal_response, language
    FROM cases
    ORDER BY case_id, created_at DESC
),
replies AS (
    SELECT
        case_id AS place, suite, attack, category, ideal_response, language, sample_index, model,
        setting, answer_id AS reply_id, grade
    FROM answered
    JOIN asked USING (case_id)
    LEFT JOIN grades USING (answer_id)
    UNION ALL
    SELECT
        r.prompt_id, r.source, 'none', r.category, r.ideal_response, r.language, c.sample_index,
        c.model, c.generation_id, c.completion_id, r.min_score / 10
    FROM app.completions AS c
    JOIN chosen_rows AS r USING (number)
    WHERE (c.model, c.generation_id) IN (($left_model, $left_setting), ($right_model, $right_setting))
),
pairs AS (
    SELECT
        a.place, a.suite, a.attack, a.category, a.ideal_response, a.language, a.sample_index,
        a.grade AS grade_left, b.grade AS grade_right, b.grade - a.grade AS difference,
        a.reply_id AS left_id, b.reply_id AS right_id
    FROM replies AS a
    JOIN replies AS b USING (place, sample_index)
    WHERE (a.model, a.setting) = ($left_model, $left_setting)
      AND (b.model, b.setting) = ($right_model, $right_setting)
)
SELECT *
FROM pairs
WHERE (len($categories::VARCHAR[]) = 0 OR list_contains($categories, category))
  AND (len($ideal_responses::VARCHAR[]) = 0 OR list_contains($ideal_responses, ideal_response))
  AND (len($languages::VARCHAR[]) = 0 OR list_contains($languages, language))
ORDER BY
    CASE $order
        WHEN 'right better' THEN -difference
        WHEN 'left better' THEN difference
        WHEN 'furthest apart' THEN -abs(difference)
        WHEN 'random' THEN 0
    END NULLS LAST,
    md5(place), sample_index
LIMIT $limit;
