-- The texts of rules as the specs of the completions' categories have them.
SELECT DISTINCT ON (rule_id)
    rule_id,
    regexp_extract(text, '(?m)^- .*\[' || regexp_escape(rule_id) || '[,\]].*(?:\n  .*)*') AS rule_text
FROM (SELECT *, unnest(rule_ids) AS rule_id FROM specs)
WHERE list_contains($rules::VARCHAR[], rule_id)
ORDER BY rule_id, created_at DESC;
