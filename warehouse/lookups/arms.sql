-- The arms of the evaluation, in the order of tables.
SELECT *
FROM arms
ORDER BY position, seed, probe;
