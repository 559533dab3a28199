-- The value of each prompt by arm and metric, over the samples of its answer.
SELECT arm, suite, metric, grader, prompt_id, avg(value) AS value
FROM metric_values
WHERE slice = 'all'
GROUP BY ALL;
