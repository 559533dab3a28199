-- Examples that a refresh had chosen when a recipe's checkpoint was trained.
WITH training AS (
    SELECT max(started_at) AS started_at
    FROM runs
    WHERE recipe = $recipe
        AND flow = 'train'
        AND status = 'completed'
        AND list_contains((figures->'checkpoints')::VARCHAR[], $checkpoint_id)
),
frozen AS (
    SELECT set_id
    FROM runs
    WHERE recipe = $recipe
        AND set_id IS NOT NULL
        AND started_at < (SELECT started_at FROM training)
    ORDER BY started_at DESC
    LIMIT 1
)
SELECT count(*) AS num_examples
FROM examples
SEMI JOIN frozen USING (set_id)
WHERE status = 'chosen';
