-- Rows of the sources by what became of them: duplicates, contamination by suites, conflicts, faults.
WITH sources AS (
    SELECT recipe, s.key AS source, s.value AS counts
    FROM latest_plans, json_each(json_merge_patch(
        coalesce(figures->'collect', '{}'), coalesce(figures->'traces', '{}')
    )) AS s
)
SELECT
    recipe,
    source,
    (counts->>'read')::BIGINT AS num_read,
    (counts->>'exact_duplicates')::BIGINT AS num_exact_duplicates,
    (counts->>'near_duplicates')::BIGINT AS num_near_duplicates,
    (counts->>'contaminated')::BIGINT AS num_contaminated,
    (counts->>'conflicting')::BIGINT AS num_conflicting,
    (counts->>'left_out')::BIGINT + (counts->>'unassigned')::BIGINT AS num_left_out,
    list_sum(map_values((counts->'bad')::MAP(VARCHAR, BIGINT)))::BIGINT AS num_bad
FROM sources
ORDER BY recipe, source;
