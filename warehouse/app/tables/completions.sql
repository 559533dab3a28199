-- The current completions, each with a number.
SELECT (row_number() OVER () - 1)::INTEGER AS number, * FROM memory.main.completions;
