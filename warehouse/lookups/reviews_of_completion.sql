-- The newest review of each reviewer of one completion.
FROM reviews WHERE completion_id = $completion_id ORDER BY reviewer;
