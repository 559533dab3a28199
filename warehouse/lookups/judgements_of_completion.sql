-- The judgements of one completion.
SELECT judgement_id, sample_index, criterion, status, score, criteria, agrees, reason, model, judging_id, rationale
FROM judgements_all
WHERE completion_id = $completion_id
ORDER BY judging_id, sample_index;
