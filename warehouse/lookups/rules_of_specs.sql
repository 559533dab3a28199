-- The text of every spec, and the ids of the rules in it.
SELECT spec_id, rule_ids, text FROM specs_all;
