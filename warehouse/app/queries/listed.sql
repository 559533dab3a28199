-- The first chosen completions in an order, with what tells them apart.
SELECT
    completion_id, text_id, verdict, min_score, scores, spread, category, ideal_response, cited,
    cited_unknown, num_reasoning_tokens, num_answer_tokens, language, source, model, status
FROM chosen_rows
ORDER BY
    CASE $order
        WHEN 'lowest score' THEN min_score
        WHEN 'highest score' THEN -min_score
        WHEN 'nearest to the threshold' THEN abs(min_score - threshold)
        WHEN 'judges furthest apart' THEN -spread
        WHEN 'longest reasoning' THEN -num_reasoning_tokens
        WHEN 'shortest reasoning' THEN num_reasoning_tokens
        WHEN 'newest' THEN -epoch(created_at)
        -- Ids are hashes: an even draw.
        WHEN 'random' THEN 0
    END NULLS LAST,
    completion_id
LIMIT $limit;
