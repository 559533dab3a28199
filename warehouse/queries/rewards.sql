-- Reinforcement learning step by step: rewards, malformed rollouts and length of reasoning.
SELECT
    checkpoint_id,
    step,
    max(attempt) AS attempt,
    count(*) AS num_rollouts,
    count(reward) AS num_rewarded,
    round(avg(reward), 3) AS mean_reward,
    round(avg(reward) FILTER (kind = 'harmful'), 3) AS harmful,
    round(avg(reward) FILTER (kind = 'benign'), 3) AS benign,
    round(avg(reward) FILTER (kind = 'ambiguous'), 3) AS ambiguous,
    count(*) FILTER (status <> 'ok') AS num_malformed,
    round(avg(num_reasoning_tokens), 1) AS reasoning_tokens
FROM rollouts
GROUP BY checkpoint_id, step
ORDER BY checkpoint_id, step;
