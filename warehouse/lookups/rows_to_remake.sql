-- Rows that a refresh of each recipe makes again if these specs are replaced, by its stages, with the
-- recipe of its latest run as JSON.
WITH stale AS (
    SELECT DISTINCT p.recipe, 'generate' AS stage, c.completion_id AS row_id
    FROM plans AS p
    JOIN completions AS c
        ON c.generation_id = p.generation_id
       AND c.spec_id = p.completion_spec_id
       AND c.sample_index < p.num_samples
    WHERE list_contains($spec_ids, c.spec_id)
    UNION
    SELECT
        p.recipe, if(len(p.judges) > 1, 'judge ' || j.model, 'judge'), j.judgement_id
    FROM plans AS p
    JOIN judgements AS j
        ON list_contains(p.judges, j.judging_id)
       AND j.spec_id = p.judgement_spec_id
       AND j.sample_index < p.num_each
    WHERE list_contains($spec_ids, j.spec_id)
)
SELECT recipe, stage, count(*) AS num_rows, any_value(r.resolved_recipe) AS resolved_recipe
FROM stale
JOIN latest_plans AS r USING (recipe)
GROUP BY recipe, stage
ORDER BY recipe, stage;
