-- The grades of one answer.
SELECT evaluation_id, grader, sample_index, status, scores, reason, rationale
FROM evaluations_all
WHERE answer_id = $answer_id
ORDER BY grader, grading_id, sample_index;
