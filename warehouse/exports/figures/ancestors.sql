-- Policies that the data of the checkpoint was made under, by pack, category and hash.
WITH RECURSIVE line AS (
    SELECT checkpoint_id, parent_id, set_id FROM checkpoints WHERE checkpoint_id = $checkpoint_id
    UNION ALL
    SELECT c.checkpoint_id, c.parent_id, c.set_id
    FROM line AS l
    JOIN checkpoints AS c ON c.checkpoint_id = l.parent_id
),
used AS (
    SELECT e.spec_id FROM line AS l JOIN examples AS e USING (set_id) WHERE e.status = 'chosen'
    UNION ALL
    SELECT r.spec_id FROM line AS l JOIN rollouts AS r USING (checkpoint_id)
)
SELECT s.pack, s.pack_version, spec_key(s.categories) AS category, s.spec_id, count(*) AS num_rows
FROM used AS u
JOIN specs AS s USING (spec_id)
GROUP BY ALL
ORDER BY s.pack, category, s.spec_id;
