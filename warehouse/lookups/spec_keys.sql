-- The categories of these specs.
SELECT spec_key(categories) AS spec_key
FROM specs
WHERE list_contains($spec_ids, spec_id)
ORDER BY spec_key;
