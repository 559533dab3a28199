-- Ids of the specs that are stored.
SELECT spec_id
FROM specs;
