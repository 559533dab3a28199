-- Everything that each checkpoint descends from: checkpoints, policies and every shard.
WITH RECURSIVE line AS (
    SELECT checkpoint_id, checkpoint_id AS ancestor_id FROM checkpoints
    UNION ALL
    SELECT l.checkpoint_id, c.parent_id
    FROM line AS l
    JOIN checkpoints AS c ON c.checkpoint_id = l.ancestor_id
    WHERE c.parent_id IS NOT NULL
),
rolled AS (
    SELECT DISTINCT l.checkpoint_id, r.rollout_id, r.prompt_id, r.spec_id
    FROM line AS l
    JOIN rollouts AS r ON r.checkpoint_id = l.ancestor_id
),
-- Rows of its sets: chosen examples and, of preference pairs, the rejected side.
learned AS (
    SELECT DISTINCT l.checkpoint_id, e.completion_id, e.prompt_id, e.spec_id, e.set_id
    FROM line AS l
    JOIN checkpoints AS c ON c.checkpoint_id = l.ancestor_id
    JOIN examples AS e USING (set_id)
    WHERE e.status = 'chosen' OR e.reason = 'dispreferred'
),
-- The usable documents that the run of a midtraining wanted.
read_documents AS (
    SELECT DISTINCT l.checkpoint_id, d.document_id
    FROM line AS l
    JOIN checkpoints AS c ON c.checkpoint_id = l.ancestor_id
    JOIN runs_all AS r USING (run_id)
    JOIN documents AS d ON d.documenting_id = r.figures->>'$.documents.documenting_id'
    WHERE c.stage = 'midtrain'
      AND d.status = 'ok'
      -- A document that failed and was made after all is one that this training never read.
      AND d.created_at <= c.created_at
      AND d.sample_index < (r.figures->>'$.documents.num_samples')::BIGINT
      AND list_contains(
          from_json(r.figures->'$.documents.subject_ids', '["VARCHAR"]'), d.subject_id
      )
),
rows AS (
    SELECT checkpoint_id, 'documents' AS kind, document_id AS row_id
    FROM read_documents
    UNION
    SELECT checkpoint_id, 'examples' AS kind, set_id || '|' || completion_id AS row_id
    FROM learned
    UNION
    SELECT checkpoint_id, 'completions', completion_id FROM learned
    UNION
    SELECT l.checkpoint_id, 'judgements', j.judgement_id
    FROM learned AS l
    JOIN judgements_all AS j USING (completion_id)
    UNION
    SELECT checkpoint_id, 'prompts', prompt_id FROM learned
    UNION
    SELECT checkpoint_id, 'prompts', prompt_id FROM rolled
    UNION
    SELECT checkpoint_id, 'specs', spec_id FROM learned
    UNION
    SELECT checkpoint_id, 'specs', spec_id FROM rolled
    UNION
    SELECT checkpoint_id, 'rollouts', rollout_id FROM rolled
),
ancestors AS (
    SELECT checkpoint_id, 'shard of ' || kind AS kind, shard AS name, count(*) AS num_rows
    FROM rows
    JOIN shards USING (kind, row_id)
    GROUP BY ALL
    UNION ALL
    SELECT checkpoint_id, 'checkpoint', ancestor_id, 1 FROM line WHERE ancestor_id <> checkpoint_id
    UNION ALL
    SELECT l.checkpoint_id, 'model', c.parent, 1
    FROM line AS l
    JOIN checkpoints AS c ON c.checkpoint_id = l.ancestor_id
    WHERE c.parent_id IS NULL
    UNION ALL
    SELECT r.checkpoint_id, 'policy', p.pack || ' ' || p.pack_version || ': '
        || spec_key(p.categories) || ' ' || p.spec_id, 1
    FROM rows AS r
    JOIN specs AS p ON p.spec_id = r.row_id
    WHERE r.kind = 'specs'
)
SELECT c.stage, a.checkpoint_id, a.kind, a.name, a.num_rows
FROM ancestors AS a
JOIN checkpoints AS c USING (checkpoint_id)
ORDER BY c.created_at DESC, a.kind, a.name;
