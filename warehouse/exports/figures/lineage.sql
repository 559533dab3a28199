-- The checkpoint and those it descends from, the first training first, with their GPU-hours.
WITH RECURSIVE line AS (
    SELECT *, 0 AS generation FROM checkpoints WHERE checkpoint_id = $checkpoint_id
    UNION ALL
    SELECT c.*, l.generation + 1
    FROM line AS l
    JOIN checkpoints AS c ON c.checkpoint_id = l.parent_id
)
SELECT
    l.stage, l.checkpoint_id, l.parent, l.parent_id, l.data_fingerprint, l.set_id, l.num_rows,
    l.num_steps, l.recipe, l.seconds, round(l.seconds * f.num_gpus / 3600, 4) AS gpu_hours,
    l.git_commit, l.created_at
FROM line AS l
-- A run that trains several checkpoints in one stage keeps the figures of the last, but all of them
-- have as many GPUs.
LEFT JOIN stage_figures AS f ON f.run_id = l.run_id AND f.stage = l.stage AND f.is_training
ORDER BY l.generation DESC;
