-- The graders of the evaluation.
SELECT *
FROM run_graders
ORDER BY grader, grading_id;
