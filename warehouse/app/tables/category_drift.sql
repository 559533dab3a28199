-- The acceptance of each category now and before.
SELECT * FROM memory.main.category_drift;
