-- The runs that the rows come from, and what they ran on.
SELECT
    r.run_id, r.flow, r.recipe, r.status, r.started_at, r.git_commit, r.versions,
    r.run_id IN (SELECT run_id FROM latest_plans) AS is_latest
FROM runs AS r
SEMI JOIN (
    SELECT run_id FROM latest_plans
    UNION
    SELECT c.run_id FROM completions AS c SEMI JOIN leaving AS l USING (completion_id)
) AS w USING (run_id)
ORDER BY r.started_at;
