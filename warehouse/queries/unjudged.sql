-- Why completions are unjudged: the status and reason of the samples of the judge without a score.

-- A completion is unjudged while fewer than k of its samples have a score and none of those is under
-- the threshold. A sample has no score if its reply could not be read (no_verdict, off_scale,
-- refused, unclosed), if the engine cut it short or failed (truncated, too_long, error), or if it is
-- still to be made (missing). Refreshes ask again within the recipe's retries.
SELECT
    coalesce(j.status, 'missing') AS status,
    if(j.status IS NULL, 'samples of the judge are still to be made', j.reason) AS reason,
    count(j.judgement_id) AS num_judgements,
    count(DISTINCT v.completion_id) AS num_completions,
    min(v.completion_id) AS example
FROM verdicts AS v
LEFT JOIN judgements AS j
    ON j.completion_id = v.completion_id
   AND j.judging_id = v.judging_id
   AND j.score IS NULL
WHERE v.verdict = 'unjudged'
GROUP BY ALL
ORDER BY num_completions DESC, status, reason;
