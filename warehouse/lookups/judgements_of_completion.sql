-- The judgements of one completion.
SELECT sample_index, status, score, agrees, reason, rationale
FROM judgements_all
WHERE completion_id = $completion_id
ORDER BY judging_id, sample_index;
