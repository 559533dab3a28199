-- Completions that left by category and ideal response: accepted, rejected, and the median length of
-- the reasoning in tokens.
SELECT
    category, ideal_response,
    count(DISTINCT prompt_id) AS num_prompts,
    count(*) AS num_completions,
    count_if(verdict = 'accepted')::BIGINT AS num_accepted,
    count_if(verdict = 'rejected')::BIGINT AS num_rejected,
    median(num_reasoning_tokens)::DOUBLE AS median_reasoning_tokens
FROM leaving
GROUP BY category, ideal_response
ORDER BY category, ideal_response NULLS LAST;
