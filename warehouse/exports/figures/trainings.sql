-- Tokens, seconds and GPU-hours of the trainings of the checkpoint and of those it descends from.
WITH RECURSIVE line AS (
    SELECT * FROM checkpoints WHERE checkpoint_id = $checkpoint_id
    UNION ALL
    SELECT c.* FROM line AS l JOIN checkpoints AS c ON c.checkpoint_id = l.parent_id
)
SELECT
    l.stage, l.checkpoint_id, f.num_rows, f.num_steps, round(f.seconds, 1) AS seconds,
    round(f.seconds * coalesce(f.num_gpus, 0) / 3600, 4) AS gpu_hours
FROM line AS l
JOIN stage_figures AS f ON f.run_id = l.run_id AND f.stage = l.stage AND f.is_training
ORDER BY l.created_at;
