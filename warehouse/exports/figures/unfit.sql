-- Rows of each configuration that stayed behind, because the form has no place for them.
SELECT config, num_rows
FROM unfit
WHERE num_rows > 0
ORDER BY config;
