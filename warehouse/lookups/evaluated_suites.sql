-- The suites of the evaluation.
SELECT *
FROM run_suites
ORDER BY suite;
