-- Every score of every answer of the evaluation.
SELECT DISTINCT answer_id, grader, score, value
FROM graded
WHERE answer_id IS NOT NULL;
