-- Checkpoints that descend from these specs: by an example, by the other side of a preference pair, by
-- a rollout, or by a checkpoint before them that does.
WITH RECURSIVE touched AS (
    SELECT c.checkpoint_id
    FROM checkpoints AS c
    JOIN examples AS e USING (set_id)
    WHERE list_contains($spec_ids, e.spec_id)
        AND (e.status = 'chosen' OR e.reason = 'dispreferred')
    UNION
    SELECT checkpoint_id
    FROM rollouts
    WHERE list_contains($spec_ids, spec_id)
),
line AS (
    SELECT checkpoint_id FROM touched
    UNION
    SELECT c.checkpoint_id
    FROM line AS l
    JOIN checkpoints AS c ON c.parent_id = l.checkpoint_id
)
SELECT checkpoint_id, stage, status, recipe, num_rows, seconds, created_at
FROM checkpoints
SEMI JOIN line USING (checkpoint_id)
ORDER BY created_at, checkpoint_id;
