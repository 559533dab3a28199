-- Reasoning that leads astray, of each prompt of relation `candidates(prompt_id, categories)` that
-- has some: that of its own completion with the lowest score below the threshold; else that of an
-- accepted completion of a prompt of a common category that is to be refused where it is to be
-- helped, or the other way round. The same each time.
WITH reasoned AS (
    SELECT
        c.prompt_id, c.completion_id, c.reasoning, v.verdict, v.min_score,
        p.ideal_response = 'comply' AS is_benign, a.categories
    FROM candidates AS a
    JOIN prompts AS p USING (prompt_id)
    JOIN completions AS c USING (prompt_id)
    JOIN verdicts AS v USING (completion_id)
    WHERE c.generation_id = $generation_id
        AND v.judging_id = $judging_id
        AND c.reasoning <> ''
),
own AS (
    SELECT prompt_id, arg_min(reasoning, (min_score, completion_id)) AS reasoning
    FROM reasoned
    WHERE verdict = 'rejected'
    GROUP BY prompt_id
),
by_category AS (
    SELECT unnest(categories) AS category, is_benign, reasoning, completion_id
    FROM reasoned
    WHERE verdict = 'accepted'
        AND is_benign IS NOT NULL
),
others AS (
    SELECT
        category, is_benign, reasoning,
        row_number() OVER (PARTITION BY category, is_benign ORDER BY completion_id) - 1 AS place,
        count(*) OVER (PARTITION BY category, is_benign) AS num_others
    FROM by_category
),
ranked AS (
    SELECT
        a.prompt_id, a.categories[1] AS category, ideal_response = 'comply' AS is_benign,
        row_number() OVER (PARTITION BY category, is_benign ORDER BY a.prompt_id) - 1 AS place
    FROM candidates AS a
    JOIN prompts USING (prompt_id)
    WHERE len(a.categories) > 0
)
SELECT
    r.prompt_id,
    coalesce(own.reasoning, o.reasoning) AS reasoning
FROM ranked AS r
LEFT JOIN own USING (prompt_id)
LEFT JOIN others AS o
    ON o.category = r.category
    AND o.is_benign <> r.is_benign
    AND o.place = r.place % o.num_others
WHERE coalesce(own.reasoning, o.reasoning) IS NOT NULL
ORDER BY r.prompt_id;
