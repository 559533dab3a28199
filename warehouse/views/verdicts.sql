-- Refreshes whose judge had drifted and that nobody has approved: their judgements are held back.
-- A refresh that ended before drift was tested is held with the refresh that tested it.
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

-- A completion is rejected when any score is under the threshold, accepted when all k samples of
-- every judge were read and none is, and otherwise unjudged. Unread samples never count as a score. Judgements
-- of a judge that had drifted are held until a person approves them. Of a trace whose scores came with
-- it, k is the number of their criteria.
CREATE VIEW verdicts AS
WITH plan AS (
    SELECT DISTINCT
        generation_id, judging_id, spec_id, judgement_spec_id, num_each, num_judgements, threshold
    FROM plans
),
scored AS (
    SELECT
        c.completion_id, p.spec_id, p.judging_id, p.num_judgements, p.threshold,
        c.status AS completion_status,
        count(j.score) AS num_parsed,
        count(j.judgement_id) AS num_judged,
        count(h.run_id) AS num_held,
        min(j.score) AS min_score,
        list(j.score ORDER BY j.judge_id, j.sample_index) FILTER (j.score IS NOT NULL) AS scores
    FROM completions AS c
    LEFT JOIN trace_specs AS t USING (completion_id)
    JOIN plan AS p
        ON p.generation_id = c.generation_id
       AND p.spec_id = coalesce(c.spec_id, t.spec_id)
    LEFT JOIN votes AS j
        ON j.completion_id = c.completion_id
       AND j.judging_id = p.judging_id
       AND j.spec_id IS NOT DISTINCT FROM p.judgement_spec_id
       AND j.num_each = p.num_each
    -- Scores that came with traces are not of the judge that had drifted.
    LEFT JOIN held AS h ON h.run_id = j.run_id AND j.spec_id IS NOT NULL
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
    END AS verdict,
    verdict = 'accepted' AS accepted
FROM scored;

-- Accepted completions, each once, with the scores that accepted them.
CREATE VIEW accepted AS
SELECT c.* REPLACE (v.spec_id AS spec_id), v.judging_id, v.min_score, v.scores
FROM completions AS c
JOIN verdicts AS v USING (completion_id)
WHERE v.accepted
QUALIFY row_number() OVER (PARTITION BY c.completion_id ORDER BY v.judging_id) = 1;

-- The best against the worst completion of each prompt that has both, by their lowest scores. What
-- people say goes before what the judge says: whom they reject or dispute is not the best, and whom
-- they accept or dispute not the worst.
CREATE VIEW preference_pairs AS
WITH scored AS (
    SELECT
        c.prompt_id, v.spec_id, c.generation_id, v.judging_id, c.completion_id, v.verdict,
        v.min_score, v.scores, c.cited, c.reasoning, c.answer,
        coalesce(r.review_verdict, 'unsure') AS review_verdict
    FROM verdicts AS v
    JOIN completions AS c USING (completion_id)
    LEFT JOIN reviewed AS r USING (completion_id)
    WHERE v.min_score IS NOT NULL
),
best AS (
    SELECT *
    FROM scored
    WHERE verdict = 'accepted' AND review_verdict NOT IN ('rejected', 'disputed')
    QUALIFY row_number() OVER (
        PARTITION BY prompt_id, spec_id, generation_id, judging_id
        ORDER BY min_score DESC, completion_id
    ) = 1
),
worst AS (
    SELECT *
    FROM scored
    WHERE verdict = 'rejected' AND review_verdict NOT IN ('accepted', 'disputed')
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
