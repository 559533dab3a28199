-- The drafts of these rules of a pack. One is written if a fill for its rule has ended as it should
-- since: its line was added to the file, or its prompt was left out. A person may delete the line.
WITH fills AS (
    SELECT
        run_id, started_at,
        figures->>'$.filled.pack' AS pack,
        from_json(figures->'$.filled.rule_ids', '["VARCHAR"]') AS rule_ids
    FROM runs
    WHERE flow = 'fill' AND status = 'completed'
)
SELECT
    d.draft_id, d.angle_id, d.drafting_id, d.rule_id, d.category, d.side, d.ideal_response,
    d.near_id, d.sample_index, d.attempt, d.status, d.reason, d.model, d.prompt_id, d.run_id,
    d.angle, d.messages,
    EXISTS (
        FROM fills AS f
        WHERE f.pack = s.pack
          AND list_contains(f.rule_ids, d.rule_id)
          AND (f.run_id = d.run_id OR f.started_at > d.created_at)
    ) AS is_written
FROM drafts AS d
JOIN specs AS s USING (spec_id)
WHERE s.pack = $pack AND list_contains($rule_ids, d.rule_id)
ORDER BY d.rule_id, d.created_at, d.draft_id;
