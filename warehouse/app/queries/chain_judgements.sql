-- The judgements of one completion and its text, the lowest score first.
WITH chain AS (
    SELECT completion_id, prompt_id, text_id, spec_id
    FROM completions_raw
    WHERE completion_id = $completion_id AND text_id = $text_id
    LIMIT 1
)
SELECT
    j.judgement_id, j.model, j.criterion, j.sample_index, j.score, j.criteria, j.status, j.reason,
    j.agrees, j.rationale
FROM judgements_raw AS j
JOIN chain AS c
    ON c.prompt_id = j.prompt_id
   AND c.text_id = j.text_id
   AND is_about(j, c)
WHERE j.text_id = $text_id
QUALIFY row_number() OVER (PARTITION BY j.judgement_id ORDER BY j.attempt DESC, j.created_at) = 1
ORDER BY j.score NULLS LAST, j.model, j.criterion, j.sample_index;
