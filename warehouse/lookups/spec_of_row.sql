-- The spec that a row was made under.
SELECT spec_id, pack, pack_version, categories, detail, text
FROM specs_all
WHERE spec_id = $spec_id;
