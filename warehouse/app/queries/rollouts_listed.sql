-- The rollouts of one step of a training, in an order.
SELECT
    r.rollout_id, r.step, r.kind, p.category, r.status, r.reward, r.compliance, r.helpfulness,
    r.num_reasoning_tokens, r.num_answer_tokens
FROM rollouts AS r
LEFT JOIN (SELECT prompt_id, spec_key(categories) AS category FROM app.prompts_all) AS p
    USING (prompt_id)
WHERE r.checkpoint_id = $checkpoint AND r.step = $step
ORDER BY
    CASE $order WHEN 'lowest reward' THEN reward WHEN 'highest reward' THEN -reward ELSE position END
        NULLS LAST,
    rollout_id
LIMIT $limit;
