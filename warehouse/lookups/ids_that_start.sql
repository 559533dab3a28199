-- Every id that starts so, with the table of its row: an id that is the whole text comes first. A
-- rule of a policy goes by its own id, a set of examples by the id of the set.
WITH every AS (
    SELECT 1 AS place, 'completions' AS kind, completion_id AS row_id FROM completions_raw
    UNION ALL
    SELECT 2, 'prompts', prompt_id FROM prompts_raw
    UNION ALL
    SELECT 3, 'specs', spec_id FROM specs_raw
    UNION ALL
    SELECT 4, 'runs', run_id FROM runs_raw
    UNION ALL
    SELECT 5, 'answers', answer_id FROM answers_raw
    UNION ALL
    SELECT 6, 'cases', case_id FROM cases_raw
    UNION ALL
    SELECT 7, 'evaluations', evaluation_id FROM evaluations_raw
    UNION ALL
    SELECT 8, 'judgements', judgement_id FROM judgements_raw
    UNION ALL
    SELECT 9, 'checkpoints', checkpoint_id FROM checkpoints_raw
    UNION ALL
    SELECT 10, 'rollouts', rollout_id FROM rollouts_raw
    UNION ALL
    SELECT 11, 'exchanges', exchange_id FROM exchanges_raw
    UNION ALL
    SELECT 12, 'examples', set_id FROM examples_raw
    UNION ALL
    SELECT 13, 'rules', unnest(rule_ids) FROM specs_raw
),
matching AS (
    SELECT DISTINCT place, kind, row_id
    FROM every
    WHERE starts_with(row_id, $row_id)
)
SELECT kind, row_id, count(*) OVER () AS num_matching
FROM matching
ORDER BY row_id = $row_id DESC, place, row_id
LIMIT 8;
