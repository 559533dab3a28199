-- The scores that came with traces, as they are stored last.
SELECT completion_id, judgement_id, judging_id, attempt, status, score, reason
FROM judgements_all
WHERE spec_id IS NULL;
