-- Ids of the cases of a suite, at a version.
SELECT case_id
FROM cases
WHERE suite_version = $suite_version;
