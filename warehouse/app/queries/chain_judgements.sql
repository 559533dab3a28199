-- The judgements of one completion and its text, the lowest score first.
SELECT
    judgement_id, model, criterion, sample_index, score, criteria, status, reason, agrees, rationale
FROM judgements_raw
WHERE completion_id = $completion_id AND text_id = $text_id
QUALIFY row_number() OVER (PARTITION BY judgement_id ORDER BY attempt DESC, created_at) = 1
ORDER BY score NULLS LAST, model, criterion, sample_index;
