-- Preference pairs: the best and the worst completion of a prompt, as TRL's DPO trainer reads them.
SELECT
    chosen_id,
    rejected_id,
    chosen_score,
    rejected_score,
    messages AS prompt,
    [{role: 'assistant', content: chosen_answer, reasoning_content: chosen_reasoning}] AS chosen,
    [{role: 'assistant', content: rejected_answer, reasoning_content: rejected_reasoning}]
        AS rejected
FROM preference_pairs
ORDER BY chosen_id;
