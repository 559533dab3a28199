-- The full texts that models were shown of one version of a pack.
SELECT text
FROM specs
WHERE pack = $pack
    AND pack_version = $version
    AND detail = 'full'
ORDER BY spec_id;
