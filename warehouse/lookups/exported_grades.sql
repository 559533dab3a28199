-- Every grade of every answer of the evaluation.
SELECT * EXCLUDE (run_id, evaluation_id)
FROM run_grades;
