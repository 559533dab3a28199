-- Texts of view `wanted_completions` that lack judge samples, each once: completions of one prompt and
-- spec with equal texts share their judgements. Scores that came with a trace take the place of the
-- judge. A judge that races asks for no more samples of a text that has a score under the threshold,
-- by itself or by another judge of `$jury`.
CREATE OR REPLACE TEMP TABLE pending_units AS
WITH candidates AS (
    SELECT
        c.prompt_id, c.text_id, w.spec_id,
        -- The one whose words the judge is shown, the same in every run.
        min(c.completion_id) AS completion_id
    FROM completions_all AS c
    JOIN wanted_completions AS w USING (completion_id)
    WHERE (w.is_trace OR (c.generation_id = $generation_id AND c.sample_index < $num_completions))
        AND w.judging_id IS NULL
        AND c.status = 'ok'
    GROUP BY c.prompt_id, c.text_id, w.spec_id
),
tried AS (
    SELECT judgement_id, attempt, score, status, run_id
    FROM judgements_once
    WHERE list_contains($jury, judging_id)
),
slots AS (
    SELECT
        c.*, s.sample_index, y.judging_id,
        -- What the judge is shown of a prompt's metadata is part of the identity.
        content_id(
            [c.prompt_id, c.text_id, c.spec_id, y.judging_id, s.sample_index::VARCHAR]
            || CASE WHEN $show_metadata THEN p.metadata ELSE [] END
        ) AS judgement_id
    FROM candidates AS c
    JOIN prompts AS p USING (prompt_id),
        (SELECT unnest(range($samples)) AS sample_index) AS s,
        (SELECT unnest($jury) AS judging_id) AS y
),
settled AS (
    SELECT DISTINCT s.completion_id, s.spec_id
    FROM slots AS s
    JOIN tried AS t USING (judgement_id)
    WHERE $race AND t.score < $threshold
),
missing AS (
    SELECT s.completion_id, s.spec_id, s.prompt_id, s.sample_index,
        coalesce(t.attempt + 1, 0) AS attempt
    FROM slots AS s
    ANTI JOIN settled USING (completion_id, spec_id)
    LEFT JOIN tried AS t USING (judgement_id)
    WHERE s.judging_id = $judging_id
        AND (
            t.judgement_id IS NULL
            OR (t.score IS NULL AND t.attempt < $retries)
            OR (t.status = 'error' AND t.attempt + 1 < $error_attempts AND t.run_id <> $run_id)
        )
)
SELECT
    spec_id AS block_key, completion_id, spec_id, prompt_id,
    list(sample_index ORDER BY sample_index) AS sample_indices,
    list(attempt ORDER BY sample_index) AS attempts
FROM missing
GROUP BY completion_id, spec_id, prompt_id;

SELECT
    u.block_key, u.prompt_id, c.text_id, u.spec_id, p.messages, p.metadata, c.reasoning, c.answer,
    u.sample_indices, u.attempts
FROM pending_units AS u
JOIN completions_all AS c USING (completion_id)
JOIN prompts AS p ON p.prompt_id = u.prompt_id
ORDER BY u.block_key, u.completion_id;
