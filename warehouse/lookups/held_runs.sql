-- The runs that raised an alarm which nobody has approved.
SELECT DISTINCT by_run
FROM held
ORDER BY by_run;
