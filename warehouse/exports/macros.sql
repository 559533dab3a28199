-- The words that users say in a chat, however they are written: letters and digits alone, in small
-- letters; the signs themselves where there is no word.
CREATE OR REPLACE TEMP MACRO user_words(messages) AS array_to_string(
    list_transform(
        list_filter(messages, lambda turn: turn.role = 'user'),
        lambda turn: coalesce(
            nullif(trim(regexp_replace(lower(turn.content), '[^\p{L}\p{N}]+', ' ', 'g')), ''),
            turn.content
        )
    ),
    chr(10)
);

-- Whether a chat has calls of tools.
CREATE OR REPLACE TEMP MACRO has_calls(messages) AS len(list_filter(
    messages, lambda turn: turn.tool_calls IS NOT NULL OR turn.role = 'tool'
)) > 0;

-- Whether a text holds a tag that would end or open the reasoning elsewhere.
CREATE OR REPLACE TEMP MACRO has_tag(text) AS
    contains(text, '<think>') OR contains(text, '</think>');

-- A reply as one text, its reasoning between tags.
CREATE OR REPLACE TEMP MACRO tagged(reasoning, answer) AS
    '<think>' || chr(10) || trim(reasoning) || chr(10) || '</think>' || chr(10) || chr(10) || answer;

-- What makes a judge of a recipe's the judge that it is: what it is asked, how it is sampled, and the
-- models.
CREATE OR REPLACE TEMP MACRO judge_settings(recipe) AS [
    (recipe->>'$.judge.template'), (recipe->>'$.judge.sampling'), (recipe->>'$.judge.criteria'),
    if(
        (recipe->>'$.judge_engine.model') IS NULL,
        (recipe->>'$.engine.model') || '@' || coalesce(recipe->>'$.engine.revision', ''),
        (recipe->>'$.judge_engine.model') || '@' || coalesce(recipe->>'$.judge_engine.revision', '')
    ),
    (recipe->'$.judge_engines[*].model')::VARCHAR, (recipe->'$.judge_engines[*].revision')::VARCHAR
];

-- A turn as ShareGPT names it.
CREATE OR REPLACE TEMP MACRO speaker(role) AS CASE role
    WHEN 'user' THEN 'human'
    WHEN 'assistant' THEN 'gpt'
    ELSE role
END;
