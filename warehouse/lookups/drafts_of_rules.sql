-- The drafts of these rules of a pack, each with whether its run has ended as it should.
SELECT
    d.draft_id, d.angle_id, d.spec_id, d.drafting_id, d.rule_id, d.category, d.side,
    d.ideal_response, d.near_id, d.sample_index, d.status, d.model, d.prompt_id, d.run_id,
    d.messages,
    r.status = 'completed' AS is_written
FROM drafts AS d
JOIN specs AS s USING (spec_id)
LEFT JOIN runs AS r USING (run_id)
WHERE s.pack = $pack AND list_contains($rule_ids, d.rule_id)
ORDER BY d.rule_id, d.created_at, d.draft_id;
