-- The prompts that may leave as training data: those of split `train` that no suite asks, by id or by
-- the user's words.
WITH spoken AS (
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
    p.language, p.transform,
    len(list_filter(
        p.messages, lambda turn: turn.tool_calls IS NOT NULL OR turn.role = 'tool'
    )) > 0 AS has_tools,
    p.split <> 'train' OR a.prompt_id IS NOT NULL OR w.words IS NOT NULL AS is_held_out
FROM prompts AS p
JOIN spoken AS s USING (prompt_id)
LEFT JOIN asked AS a USING (prompt_id)
LEFT JOIN said AS w ON w.words = s.words;
