-- The cases of one arm in one suite, each with its answer if there is one.
SELECT
    c.prompt_id || if(c.attack = 'none', '', '/' || c.attack) AS plain_id,
    if(
        count(DISTINCT c.case_id) OVER (PARTITION BY plain_id) > 1,
        plain_id || '/' || left(c.case_id, 8),
        plain_id
    ) AS id,
    c.case_id, c.prompt_id, c.attack, c.attack_version, c.sanitised, c.categories, c.kind,
    c.ideal_response, c.language, c.transform, c.label, c.sample_index, c.answer_id,
    k.target, k.messages, k.original,
    a.status, a.reason, a.finish_reason, a.decision, a.cited, a.cited_unknown, a.closed_by_force,
    a.num_prompt_tokens, a.num_reasoning_tokens, a.num_answer_tokens, a.created_at,
    a.answer, a.reasoning
FROM cells AS c
JOIN run_cases AS k USING (suite, case_id)
LEFT JOIN answers AS a USING (answer_id)
WHERE c.arm = $arm
    AND c.seed IS NOT DISTINCT FROM $seed
    AND c.probe = $probe
    AND c.suite = $suite
    -- Only some answers of an arm are tampered with: the others are not missing.
    AND (c.probe = 'none' OR c.answer_id IS NOT NULL)
ORDER BY id, c.sample_index;
