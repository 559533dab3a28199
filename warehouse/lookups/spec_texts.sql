-- The texts of some specs.
SELECT spec_id, text
FROM specs_all
WHERE list_contains($spec_ids, spec_id);
