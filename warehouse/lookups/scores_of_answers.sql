-- The scores of these answers. Reads table `exported_scores`.
SELECT answer_id, grader, score, value
FROM exported_scores
SEMI JOIN (SELECT unnest($answers) AS answer_id) AS wanted USING (answer_id)
ORDER BY score;
