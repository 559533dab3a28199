-- The grades of these answers, with all that is known of them. Reads table `exported_grades`.
SELECT *
FROM exported_grades
SEMI JOIN (SELECT unnest($answers) AS answer_id) AS wanted USING (answer_id)
ORDER BY sample_index;
