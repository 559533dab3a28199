-- The latest completed evaluation that asked the checkpoint, and the arms that are it.
WITH planned AS (
    SELECT
        run_id, recipe, started_at,
        unnest(from_json(figures->'$.evaluation.arms', '[{"arm": "VARCHAR", "checkpoint_id": "VARCHAR"}]'))
            AS arm
    FROM runs
    WHERE status = 'completed' AND json_type(figures, '$.evaluation.arms') IS NOT NULL
)
SELECT run_id, recipe, list(DISTINCT arm.arm ORDER BY arm.arm) AS arms
FROM planned
WHERE arm.checkpoint_id = $checkpoint_id
GROUP BY run_id, recipe, started_at
ORDER BY started_at DESC
LIMIT 1;
