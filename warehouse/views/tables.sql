-- Every judgement of a text that is there, a row for each completion that has the text: completions
-- of one prompt and spec share it. A score that came with a trace is about that trace alone. To count
-- judgements or what they cost, count each `judgement_id` once.
CREATE VIEW judgements_all AS
SELECT j.* REPLACE (c.completion_id AS completion_id)
FROM judgements_once AS j
JOIN completions_all AS c
    ON c.prompt_id = j.prompt_id
   AND c.text_id = j.text_id
   AND is_about(j, c);

-- The latest run of each recipe that wanted completions or traces.
CREATE VIEW latest_plans AS
SELECT *
FROM runs_all
WHERE generation_id IS NOT NULL OR len(traces) > 0
QUALIFY row_number() OVER (PARTITION BY recipe ORDER BY started_at DESC) = 1;

-- What those runs wanted, a row for each spec: it tells which rows are current. A completion was made
-- under `completion_spec_id`, which is null for traces, and is judged under `spec_id`; its judgements
-- bear `judgement_spec_id`, which is null for scores that came with traces. Of a jury, `judging_id` is
-- that of all its judges together, `judges` has theirs, and `num_each` are the samples of each.
CREATE VIEW plans AS
WITH parts AS (
    SELECT
        recipe, run_id, generation_id, judging_id, jury, num_samples, num_judgements AS num_each,
        threshold, set_id, spec_ids, false AS of_traces, false AS has_scores
    FROM latest_plans
    WHERE generation_id IS NOT NULL
    -- Several files of one model and judge are one plan.
    UNION
    SELECT
        recipe, run_id, t.generation_id, coalesce(t.judging_id, l.judging_id),
        CASE WHEN t.judging_id IS NULL THEN jury ELSE [] END, 1,
        coalesce(t.num_judgements, l.num_judgements),
        threshold, set_id, spec_ids, true, t.judging_id IS NOT NULL
    FROM (SELECT *, unnest(traces) AS t FROM latest_plans) AS l
),
specs_of AS (
    SELECT * EXCLUDE (spec_ids), unnest(spec_ids) AS spec_id
    FROM parts
)
SELECT
    * EXCLUDE (jury, of_traces, has_scores),
    CASE WHEN len(jury) > 0 THEN jury ELSE [judging_id] END AS judges,
    num_each * len(judges) AS num_judgements,
    CASE WHEN NOT of_traces THEN spec_id END AS completion_spec_id,
    CASE WHEN NOT has_scores THEN spec_id END AS judgement_spec_id
FROM specs_of;

-- The judges of those plans, a row for each.
CREATE VIEW judges AS
SELECT DISTINCT
    judging_id, judgement_spec_id, num_each, len(judges) AS num_judges, unnest(judges) AS judge_id
FROM plans;

-- The specs that each trace may be judged under: those of its prompt's categories.
CREATE VIEW trace_specs AS
SELECT DISTINCT c.completion_id, s.spec_id
-- The raw rows, where a file without traces is skipped unread; no later row replaces a trace.
FROM completions_raw AS c
JOIN prompts_all AS p USING (prompt_id)
JOIN specs_all AS s ON s.categories = p.categories AND s.detail = 'full'
WHERE c.spec_id IS NULL;

-- Completions that the latest run of some recipe wanted. Without any plan, as in a warehouse that
-- was written by hand, all completions are current.
CREATE VIEW completions AS
SELECT *
FROM completions_all AS c
WHERE EXISTS (
        SELECT 1
        FROM plans AS p
        WHERE p.generation_id = c.generation_id
          AND p.completion_spec_id IS NOT DISTINCT FROM c.spec_id
          AND c.sample_index < p.num_samples
    )
   OR NOT EXISTS (FROM latest_plans);

-- Judgements that the latest run of some recipe wanted. Of two judgements of one sample, which
-- differ in the metadata that the judge was shown, the later one counts.
CREATE VIEW judgements AS
SELECT *
FROM judgements_all AS j
WHERE EXISTS (
        SELECT 1
        FROM judges AS p
        WHERE p.judge_id = j.judging_id
          AND p.judgement_spec_id IS NOT DISTINCT FROM j.spec_id
          AND j.sample_index < p.num_each
    )
   OR NOT EXISTS (FROM latest_plans)
QUALIFY row_number() OVER (
    PARTITION BY completion_id, spec_id, judging_id, sample_index ORDER BY created_at DESC
) = 1;

-- The judgements that a verdict rests on: of a jury, those of all its judges. `judging_id` is that of
-- the verdict, `judge_id` that of the judge.
CREATE VIEW votes AS
SELECT
    p.judging_id, p.num_each, p.num_judges, j.* RENAME (judging_id AS judge_id),
    -- The criterion of the score, if there are several.
    coalesce(
        criterion,
        list_min([{score: one.score, criterion: one.criterion} for one in criteria]).criterion
    ) AS lowest_criterion
FROM judgements AS j
JOIN judges AS p
    ON p.judge_id = j.judging_id
   AND p.judgement_spec_id IS NOT DISTINCT FROM j.spec_id
   AND j.sample_index < p.num_each;

-- Every score of a judge by one criterion, of its samples and of what came with traces.
CREATE VIEW criterion_scores AS
SELECT
    completion_id, spec_id, judging_id, model, sample_index, one.criterion AS criterion,
    one.score AS score
FROM (SELECT *, unnest(criteria) AS one FROM judgements)
UNION ALL
SELECT completion_id, spec_id, judging_id, model, sample_index, criterion, score
FROM judgements
WHERE criterion IS NOT NULL AND score IS NOT NULL;

-- Rollouts of each step of a training as it was last done, without steps beyond its end.
CREATE VIEW rollouts AS
SELECT r.*
FROM rollouts_all AS r
LEFT JOIN checkpoints_all AS c USING (checkpoint_id)
WHERE c.checkpoint_id IS NULL OR r.step < c.num_steps
QUALIFY r.attempt = max(r.attempt) OVER (PARTITION BY r.checkpoint_id, r.step);
