-- The grades of these answers.
SELECT answer_id, grader, status, reason, scores, rationale
FROM run_grades
WHERE list_contains($answers, answer_id)
ORDER BY grader, sample_index;
