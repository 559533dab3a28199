-- Functions that queries share with Python, under the same names and with the same results.

-- The id of a row made of these parts, a list of texts: null parts are left out.
CREATE MACRO content_id(parts) AS left(sha256(array_to_string(parts, '|')), 32);

-- The key of the spec that these categories are shown.
CREATE MACRO spec_key(categories) AS array_to_string(categories, '+');
