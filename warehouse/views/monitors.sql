-- Every reasoning with the latest findings of the monitors: of current completions, of answers whose
-- reasoning nobody tampered with, and of rollouts. `monitoring_id` is null until they have read it.
CREATE VIEW monitored AS
WITH latest AS (
    SELECT *
    FROM findings
    QUALIFY row_number() OVER (
        PARTITION BY kind, row_id, text_id ORDER BY created_at DESC, monitoring_id
    ) = 1
),
cases_once AS (
    SELECT case_id, any_value(prompt_id) AS prompt_id, any_value(categories) AS categories
    FROM cases
    GROUP BY case_id
),
chains AS (
    SELECT
        'completions' AS kind, c.completion_id AS row_id, c.text_id, c.prompt_id, p.categories,
        c.model, NULL::VARCHAR AS checkpoint_id, NULL::BIGINT AS step
    FROM completions AS c
    JOIN prompts_all AS p USING (prompt_id)
    WHERE c.reasoning <> ''
    UNION ALL
    SELECT
        'answers', a.answer_id, a.text_id, c.prompt_id, c.categories, a.model, a.checkpoint_id, NULL
    FROM answers AS a
    JOIN cases_once AS c USING (case_id)
    WHERE a.reasoning <> '' AND a.probe = 'none'
    UNION ALL
    SELECT
        'rollouts', r.rollout_id,
        content_id([len(r.reasoning)::VARCHAR, r.reasoning, r.answer]), r.prompt_id, p.categories,
        k.model, r.checkpoint_id, r.step
    FROM rollouts AS r
    JOIN prompts_all AS p USING (prompt_id)
    LEFT JOIN checkpoints_all AS k USING (checkpoint_id)
    WHERE r.reasoning <> ''
)
SELECT
    c.kind, c.row_id, c.prompt_id, spec_key(c.categories) AS category, c.model, c.checkpoint_id,
    c.step, f.monitoring_id, f.cited_unknown, f.cited_elsewhere, f.decision, f.outcome, f.grading,
    f.policy_text,
    len(f.cited_unknown) > 0 AS cites_invented,
    len(f.cited_elsewhere) > 0 AS cites_elsewhere,
    f.is_reversed,
    -- A column of a missing row is null, and so are these.
    CASE WHEN f.monitoring_id IS NOT NULL THEN f.grading IS NOT NULL END AS speaks_of_grading,
    CASE WHEN f.monitoring_id IS NOT NULL THEN f.policy_text IS NOT NULL END
        AS speaks_of_policy_text,
    cites_invented OR cites_elsewhere OR f.is_reversed OR speaks_of_grading OR speaks_of_policy_text
        AS is_flagged
FROM chains AS c
LEFT JOIN latest AS f USING (kind, row_id, text_id);
