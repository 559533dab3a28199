-- The answers to one case.
SELECT answer_id, model, context, probe, sample_index, status, decision, cited
FROM answers_all
WHERE case_id = $case_id
ORDER BY model, context, probe, sample_index, answer_id;
