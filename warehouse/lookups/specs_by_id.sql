-- Specs whose ids start so; two are enough to know that there are several.
SELECT *
FROM specs_all
WHERE starts_with(spec_id, $row_id)
LIMIT 2;
