-- Why completions are unjudged: the status and reason of the samples of the judge without a score.

-- A completion is unjudged while fewer than k of its samples have a score and none of those is under
-- the threshold. A sample has no score if its reply could not be read (no_verdict, off_scale,
-- refused, unclosed), if the engine cut it short or failed (truncated, too_long, error), or if it is
-- still to be made (missing). Refreshes ask again within the recipe's retries.
WITH unjudged AS (
    SELECT completion_id, judging_id, num_judgements, num_judged
    FROM verdicts
    WHERE verdict = 'unjudged'
),
lacking AS (
    SELECT v.completion_id, j.judgement_id, j.status, j.reason
    FROM unjudged AS v
    JOIN (SELECT DISTINCT ON (judging_id, judgement_id, completion_id) * FROM votes) AS j
        ON j.completion_id = v.completion_id
       AND j.judging_id = v.judging_id
    WHERE j.score IS NULL
    UNION ALL
    SELECT completion_id, NULL, 'missing', 'samples of the judge are still to be made'
    FROM unjudged
    WHERE num_judged < num_judgements
)
SELECT
    status, reason,
    -- Completions that share a text share its samples.
    count(DISTINCT judgement_id) AS num_judgements,
    count(DISTINCT completion_id) AS num_completions,
    min(completion_id) AS example
FROM lacking
GROUP BY ALL
ORDER BY num_completions DESC, status, reason;
