-- Specs that the completions were made and judged under: pack, version, category and hash.
SELECT
    s.pack, s.pack_version, spec_key(s.categories) AS category, s.spec_id,
    count(*) AS num_completions
FROM leaving AS l
JOIN specs AS s USING (spec_id)
GROUP BY ALL
ORDER BY s.pack, category, s.spec_id;
