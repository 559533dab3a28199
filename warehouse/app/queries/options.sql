-- The values that each filter can take, with their numbers of completions.
WITH values AS (
    SELECT 'categories' AS filter, category AS value FROM app.rows
    UNION ALL
    SELECT 'ideal_responses', ideal_response FROM app.rows
    UNION ALL
    SELECT 'verdicts', verdict FROM app.rows
    UNION ALL
    SELECT 'languages', language FROM app.rows
    UNION ALL
    SELECT 'sources', source FROM app.rows
    UNION ALL
    SELECT 'run', run_id FROM app.rows
    UNION ALL
    SELECT 'rule', unnest(list_concat(cited, cited_unknown)) FROM app.rows
)
SELECT v.filter, v.value, count(*) AS num_completions, any_value(r.recipe) AS recipe,
    any_value(r.started_at) AS started_at
FROM values AS v
LEFT JOIN runs AS r ON v.filter = 'run' AND r.run_id = v.value
WHERE v.value IS NOT NULL
GROUP BY v.filter, v.value
ORDER BY v.filter, v.value;
