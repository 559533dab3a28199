-- verl, for fine-tuning on chats.
SELECT
    source AS data_source,
    list_concat(turns(messages), [reply(reasoning, answer)]) AS messages,
    category AS ability,
    {
        completion_id: completion_id, prompt_id: prompt_id, spec_id: spec_id,
        ideal_response: ideal_response, language: language, score: score
    } AS extra_info
FROM rows
