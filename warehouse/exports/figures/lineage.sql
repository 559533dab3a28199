-- The checkpoint and those it descends from, the first training first.
WITH RECURSIVE line AS (
    SELECT *, 0 AS generation FROM checkpoints WHERE checkpoint_id = $checkpoint_id
    UNION ALL
    SELECT c.*, l.generation + 1
    FROM line AS l
    JOIN checkpoints AS c ON c.checkpoint_id = l.parent_id
)
SELECT
    stage, checkpoint_id, parent, parent_id, data_fingerprint, set_id, num_rows, num_steps, recipe, seconds,
    git_commit, created_at
FROM line
ORDER BY generation DESC;
