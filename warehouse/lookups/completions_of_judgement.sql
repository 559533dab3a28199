-- The completions that share a judgement, in their latest attempt with its text. Shards are asked, not
-- views: a text that was made again has no place in those.
WITH about AS (
    SELECT completion_id, prompt_id, text_id, spec_id
    FROM judgements_raw
    WHERE judgement_id = $judgement_id
    LIMIT 1
)
SELECT c.*
FROM completions_raw AS c
JOIN about AS j
    ON c.prompt_id = j.prompt_id
   AND c.text_id = j.text_id
   AND is_about(j, c)
QUALIFY row_number() OVER (
    PARTITION BY c.completion_id ORDER BY c.attempt DESC, c.created_at
) = 1
ORDER BY c.completion_id;
