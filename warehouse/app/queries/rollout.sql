-- One rollout with its texts and its prompt.
SELECT
    r.rollout_id, r.step, r.kind, coalesce(p.ideal_response, 'unknown') AS ideal_response,
    p.categories, r.status, r.reason, r.reward, r.compliance, r.helpfulness, r.num_reasoning_tokens,
    r.num_answer_tokens, r.prompt_id, r.reasoning, r.answer, p.messages
FROM rollouts_raw AS r
LEFT JOIN prompts_raw AS p USING (prompt_id)
WHERE r.rollout_id = $rollout_id
ORDER BY r.attempt DESC, p.revision DESC NULLS LAST
LIMIT 1;
