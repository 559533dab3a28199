-- What can be compared: the models that answered the cases of suites, and those that wrote completions.
SELECT
    concat_ws(
        ' · ', model, 'answers in suites', 'spec in context: ' || nullif(context, 'none'),
        'budget ' || budget, 'reasoning ' || nullif(probe, 'none'), left(answering_id, 6)
    ) AS side,
    model, answering_id AS setting, count(*) AS num_replies
FROM answers
GROUP BY model, answering_id, context, budget, probe
UNION ALL
SELECT
    concat_ws(' · ', model, 'completions', left(generation_id, 6)), model, generation_id, count(*)
FROM app.completions
GROUP BY model, generation_id
ORDER BY side;
