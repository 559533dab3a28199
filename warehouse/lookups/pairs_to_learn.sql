-- The preference pairs of a generation and a judging whose scores differ by enough.
SELECT
    prompt_id, categories, ideal_response, spec_id, messages,
    {
        completion_id: chosen_id, score: chosen_score, scores: chosen_scores, cited: chosen_cited,
        reasoning: chosen_reasoning, answer: chosen_answer
    } AS chosen,
    {
        completion_id: rejected_id, score: rejected_score, scores: rejected_scores,
        cited: rejected_cited, reasoning: rejected_reasoning, answer: rejected_answer
    } AS rejected
FROM preference_pairs
WHERE generation_id = $generation_id
    AND judging_id = $judging_id
    AND chosen_score - rejected_score >= $min_margin
ORDER BY chosen_id;
