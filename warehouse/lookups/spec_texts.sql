-- The text of every spec.
SELECT spec_id, text FROM specs_all;
