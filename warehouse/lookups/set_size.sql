-- Rows of a frozen set of examples.
SELECT count(*) AS num_rows
FROM examples_all
WHERE set_id = $set_id;
