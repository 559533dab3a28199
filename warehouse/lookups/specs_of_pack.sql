-- Every spec that models were shown of a pack. Of each set of categories `is_current` marks one: that
-- which the latest run of some recipe wanted, else the newest.
SELECT
    *,
    row_number() OVER (
        PARTITION BY categories, detail
        ORDER BY spec_id IN (SELECT spec_id FROM plans) DESC, created_at DESC, spec_id
    ) = 1 AS is_current
FROM specs
WHERE pack = $pack
ORDER BY categories, created_at, spec_id;
