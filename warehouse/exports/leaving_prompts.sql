-- The prompts that may leave as training data: those of split `train` that no suite asks, by id or by
-- the user's words. A language that no source gives is null here.
WITH sources AS (
    SELECT unnest(list_concat(
        json_extract(resolved_recipe, '$.sources[*]'), json_extract(resolved_recipe, '$.traces[*]')
    )) AS source
    FROM latest_plans
),
telling AS (
    SELECT DISTINCT source->>'name' AS source
    FROM sources
    WHERE (source->>'language') IS NOT NULL
       OR (source->>'language_column') IS NOT NULL
       OR json_type(source, '$.prompt') = 'OBJECT'
),
spoken AS (
    SELECT p.prompt_id, user_words(p.messages) AS words
    FROM prompts AS p
),
asked AS (
    SELECT DISTINCT prompt_id FROM cases
),
said AS (
    SELECT user_words(messages) AS words FROM cases
    UNION
    SELECT user_words(original) FROM cases
)
SELECT
    p.prompt_id, p.categories, spec_key(p.categories) AS category, p.ideal_response, p.source,
    if(t.source IS NOT NULL, p.language, NULL) AS language, p.transform,
    has_calls(p.messages) AS has_tools,
    p.split <> 'train' OR a.prompt_id IS NOT NULL OR w.words IS NOT NULL AS is_held_out
FROM prompts AS p
JOIN spoken AS s USING (prompt_id)
LEFT JOIN telling AS t USING (source)
LEFT JOIN asked AS a USING (prompt_id)
LEFT JOIN said AS w ON w.words = s.words;
