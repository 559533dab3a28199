-- The verdicts of one completion, one for each judging that some run wants, and the alarm of the run
-- whose judgements are held.
SELECT
    v.verdict, v.threshold, v.num_judgements, v.num_judged, v.num_parsed, v.min_score, v.scores,
    v.judging_id,
    array_agg(DISTINCT j.judge_id) FILTER (j.judge_id IS NOT NULL) AS judge_ids,
    arg_max(h.by_run, h.started_at) AS held_by,
    arg_max(h.alarm, h.started_at) AS alarm
FROM verdicts AS v
LEFT JOIN votes AS j
    ON j.completion_id = v.completion_id
   AND j.judging_id = v.judging_id
   AND coalesce(j.spec_id, v.spec_id) = v.spec_id
LEFT JOIN held AS h ON h.run_id = j.run_id AND j.spec_id IS NOT NULL
WHERE v.completion_id = $completion_id
GROUP BY ALL
ORDER BY v.judging_id;
