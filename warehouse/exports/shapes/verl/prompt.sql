-- verl, for RL: the ground truth is the ideal response, and `spec_id` names the policy to judge by.
SELECT
    source AS data_source,
    turns(messages) AS prompt,
    category AS ability,
    {style: 'model', ground_truth: coalesce(ideal_response, '')} AS reward_model,
    {
        split: 'train', index: row_number() OVER (ORDER BY completion_id) - 1,
        prompt_id: prompt_id, spec_id: spec_id, language: language, acceptance: acceptance,
        num_judged: num_judged
    } AS extra_info
FROM rows
