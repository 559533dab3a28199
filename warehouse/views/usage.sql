-- Counts and usage of every stage and training of every run, from the runs' figures.
CREATE VIEW stage_figures AS
WITH parts AS (
    SELECT
        run_id, flow, recipe, status, started_at,
        unnest(['stages', 'trainings']) AS part, figures->part AS entries
    FROM runs_all
),
named AS (
    SELECT * EXCLUDE (entries), unnest(json_keys(entries)) AS stage, entries
    FROM parts
    WHERE entries IS NOT NULL
),
entries AS (
    SELECT * EXCLUDE (entries), entries->stage AS entry
    FROM named
)
SELECT
    run_id, flow, recipe, status, started_at, stage,
    part = 'trainings' AS is_training,
    entry->>'table' AS table_name,
    (entry->>'num_units')::BIGINT AS num_units,
    (entry->>'num_rows')::BIGINT AS num_rows,
    (entry->>'num_steps')::BIGINT AS num_steps,
    (entry->>'seconds')::DOUBLE AS seconds,
    (entry->>'num_gpus')::DOUBLE AS num_gpus,
    (entry->>'$.usage.prompt_tokens')::BIGINT AS prompt_tokens,
    (entry->>'$.usage.cached_tokens')::BIGINT AS cached_tokens,
    (entry->>'$.usage.output_tokens')::BIGINT AS output_tokens,
    entry->'statuses' AS statuses
FROM entries;

-- Tokens of every call of a model, by run and stage: as the engines counted them or, where a run
-- was killed and for the rollouts of a training, as the rows say that the run left.
CREATE VIEW usage AS
WITH engines AS (
    SELECT
        run_id, stage, table_name, num_rows, prompt_tokens, cached_tokens, output_tokens, seconds,
        num_gpus
    FROM stage_figures
    WHERE output_tokens IS NOT NULL
),
calls AS (
    SELECT DISTINCT
        run_id, 'completions' AS table_name, completion_id AS row_id, attempt,
        num_prompt_tokens AS prompt_tokens, num_cached_tokens AS cached_tokens,
        num_reasoning_tokens + num_answer_tokens AS output_tokens
    FROM completions_raw
    -- A trace, and a score that came with it, is no call of a model.
    WHERE spec_id IS NOT NULL
    UNION ALL
    SELECT DISTINCT
        run_id, 'judgements', judgement_id, attempt, num_prompt_tokens, num_cached_tokens,
        num_output_tokens
    FROM judgements_raw
    WHERE spec_id IS NOT NULL
    UNION ALL
    SELECT DISTINCT
        run_id, 'rollouts', rollout_id, attempt, NULL, NULL,
        num_reasoning_tokens + num_answer_tokens
    FROM rollouts_raw
    UNION ALL
    SELECT DISTINCT
        run_id, 'answers', answer_id, attempt, num_prompt_tokens, NULL,
        num_reasoning_tokens + num_answer_tokens
    FROM answers_raw
    UNION ALL
    SELECT DISTINCT run_id, 'evaluations', evaluation_id, attempt, NULL, NULL, num_output_tokens
    FROM evaluations_raw
    WHERE model IS NOT NULL
    UNION ALL
    SELECT DISTINCT run_id, 'exchanges', exchange_id, attempt, NULL, NULL, num_answer_tokens
    FROM exchanges_raw
    UNION ALL
    SELECT DISTINCT
        run_id, 'drafts', draft_id, attempt, num_prompt_tokens, num_cached_tokens,
        num_output_tokens
    FROM drafts_raw
    -- What a function wrote cost no token.
    WHERE num_output_tokens > 0
    UNION ALL
    SELECT DISTINCT
        run_id, 'documents', document_id, attempt, num_prompt_tokens, num_cached_tokens,
        num_output_tokens
    FROM documents_raw
    WHERE num_output_tokens > 0
),
counted AS (
    SELECT
        run_id, NULL AS stage, table_name, count(*) AS num_rows,
        sum(prompt_tokens)::BIGINT AS prompt_tokens, sum(cached_tokens)::BIGINT AS cached_tokens,
        sum(output_tokens)::BIGINT AS output_tokens, NULL AS seconds, NULL AS num_gpus
    FROM calls
    ANTI JOIN engines USING (run_id, table_name)
    GROUP BY run_id, table_name
),
parts AS (
    SELECT *, 'engines' AS counted_by FROM engines
    UNION ALL
    SELECT *, 'rows' FROM counted
)
SELECT p.run_id, r.flow, r.recipe, r.started_at, p.* EXCLUDE (run_id)
FROM parts AS p
LEFT JOIN runs_all AS r USING (run_id);
