-- The reasoning that the monitors flag, with what they found in it: the newest models and steps last.
SELECT
    kind, row_id, model, step, category, cited_unknown, cited_elsewhere,
    CASE WHEN is_reversed THEN decision || ' → ' || outcome END AS reversed,
    grading, policy_text
FROM monitored
WHERE is_flagged
ORDER BY kind, model, step, category, row_id;
