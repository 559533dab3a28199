-- The latest findings of the monitors on one completion and its text.
SELECT cited_unknown, cited_elsewhere, decision, outcome, is_reversed, grading, policy_text
FROM findings
WHERE kind = 'completions' AND row_id = $completion_id AND text_id = $text_id
ORDER BY created_at DESC, monitoring_id
LIMIT 1;
