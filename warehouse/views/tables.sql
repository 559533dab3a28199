-- What is current: the rows that the latest run of each recipe wanted.
CREATE VIEW plans AS
WITH latest AS (
    SELECT *
    FROM runs_all
    WHERE generation_id IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY recipe ORDER BY started_at DESC) = 1
)
SELECT
    recipe, run_id, generation_id, judging_id, num_samples, num_judgements, threshold, set_id,
    unnest(spec_ids) AS spec_id
FROM latest;

-- Without any plan (a warehouse written by hand) everything is current.
CREATE VIEW completions AS
SELECT *
FROM completions_all AS c
WHERE EXISTS (
        SELECT 1
        FROM plans AS p
        WHERE p.generation_id = c.generation_id
          AND p.spec_id = c.spec_id
          AND c.sample_index < p.num_samples
    )
   OR NOT EXISTS (SELECT 1 FROM plans);

-- A judge that was shown other metadata of the same prompt has judged it anew.
CREATE VIEW judgements AS
SELECT *
FROM judgements_all AS j
WHERE EXISTS (
        SELECT 1
        FROM plans AS p
        WHERE p.judging_id = j.judging_id
          AND p.spec_id = j.spec_id
          AND j.sample_index < p.num_judgements
    )
   OR NOT EXISTS (SELECT 1 FROM plans)
QUALIFY row_number() OVER (
    PARTITION BY completion_id, judging_id, sample_index ORDER BY created_at DESC
) = 1;

-- Refreshes whose judge had drifted and that nobody has approved: what they judged is kept apart.
-- A refresh that ended before that was looked at is held with the one that looked.
CREATE VIEW held AS
WITH alarms AS (
    SELECT
        run_id AS by_run, recipe, started_at, figures->>'$.drift.alarm' AS alarm,
        unnest(list_append(
            coalesce((figures->'$.drift.runs')::VARCHAR[], []), run_id
        )) AS run_id
    FROM runs_all
    WHERE figures->>'$.drift.alarm' IS NOT NULL
)
SELECT DISTINCT ON (run_id) run_id, by_run, recipe, started_at, alarm
FROM alarms
WHERE by_run NOT IN (
    SELECT figures->>'$.approved'
    FROM runs_all
    WHERE figures->>'$.approved' IS NOT NULL
);

-- A completion is rejected when any score is under the threshold, accepted when all k samples
-- were read and none is, and otherwise unjudged. Unread samples are never counted as a score. What
-- a judge that had drifted says is held until somebody approves it.
CREATE VIEW verdicts AS
WITH plan AS (
    SELECT DISTINCT generation_id, judging_id, spec_id, num_judgements, threshold
    FROM plans
),
scored AS (
    SELECT
        c.completion_id, p.judging_id, p.num_judgements, p.threshold,
        c.status AS completion_status,
        count(j.score) AS num_parsed,
        count(j.judgement_id) AS num_judged,
        count(h.run_id) AS num_held,
        min(j.score) AS min_score,
        list(j.score ORDER BY j.sample_index) FILTER (j.score IS NOT NULL) AS scores
    FROM completions AS c
    JOIN plan AS p USING (generation_id, spec_id)
    LEFT JOIN judgements AS j
        ON j.completion_id = c.completion_id
       AND j.judging_id = p.judging_id
       AND j.sample_index < p.num_judgements
    LEFT JOIN held AS h ON h.run_id = j.run_id
    GROUP BY ALL
)
SELECT
    * EXCLUDE (num_held),
    CASE
        WHEN completion_status <> 'ok' THEN 'failed'
        WHEN num_held > 0 THEN 'held'
        WHEN min_score < threshold THEN 'rejected'
        WHEN num_parsed >= num_judgements THEN 'accepted'
        ELSE 'unjudged'
    END AS verdict
FROM scored;

-- The best against the worst completion of each prompt that has both, by their lowest scores.
CREATE VIEW preference_pairs AS
WITH scored AS (
    SELECT
        c.prompt_id, c.spec_id, c.generation_id, v.judging_id, c.completion_id, v.verdict,
        v.min_score, v.scores, c.cited, c.reasoning, c.answer
    FROM verdicts AS v
    JOIN completions AS c USING (completion_id)
    WHERE v.min_score IS NOT NULL
),
best AS (
    SELECT *
    FROM scored
    WHERE verdict = 'accepted'
    QUALIFY row_number() OVER (
        PARTITION BY prompt_id, spec_id, generation_id, judging_id
        ORDER BY min_score DESC, completion_id
    ) = 1
),
worst AS (
    SELECT *
    FROM scored
    WHERE verdict = 'rejected'
    QUALIFY row_number() OVER (
        PARTITION BY prompt_id, spec_id, generation_id, judging_id
        ORDER BY min_score, completion_id
    ) = 1
)
SELECT
    b.prompt_id, b.spec_id, b.generation_id, b.judging_id,
    b.completion_id AS chosen_id,
    w.completion_id AS rejected_id,
    b.min_score AS chosen_score,
    w.min_score AS rejected_score,
    b.scores AS chosen_scores,
    w.scores AS rejected_scores,
    b.cited AS chosen_cited,
    w.cited AS rejected_cited,
    p.categories,
    p.ideal_response,
    p.messages,
    b.reasoning AS chosen_reasoning,
    b.answer AS chosen_answer,
    w.reasoning AS rejected_reasoning,
    w.answer AS rejected_answer
FROM best AS b
JOIN worst AS w USING (prompt_id, spec_id, generation_id, judging_id)
JOIN prompts_all AS p USING (prompt_id);

-- Of a training that began anew, each step as it was last done, and none beyond its end.
CREATE VIEW rollouts AS
SELECT r.*
FROM rollouts_all AS r
LEFT JOIN checkpoints_all AS c USING (checkpoint_id)
WHERE c.checkpoint_id IS NULL OR r.step < c.num_steps
QUALIFY r.attempt = max(r.attempt) OVER (PARTITION BY r.checkpoint_id, r.step);
