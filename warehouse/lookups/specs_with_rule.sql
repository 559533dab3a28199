-- The spec of each pack that has a rule: one that the latest run of some recipe wanted, else the
-- newest. `num_citing` counts the completions that cite a rule of this id.
SELECT
    s.*,
    s.spec_id IN (SELECT spec_id FROM plans) AS is_current,
    (SELECT count(*) FROM completions WHERE list_contains(cited, $rule_id)) AS num_citing
FROM specs_all AS s
WHERE list_contains(s.rule_ids, $rule_id)
QUALIFY row_number() OVER (
    PARTITION BY s.pack ORDER BY is_current DESC, s.created_at DESC, len(s.categories), s.spec_id
) = 1
ORDER BY s.pack;
