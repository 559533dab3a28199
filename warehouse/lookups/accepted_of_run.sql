-- The number of completions that a run judged and that are accepted.
SELECT count(DISTINCT v.completion_id) AS num_accepted
FROM verdicts AS v
SEMI JOIN judgements_all AS j
    ON j.completion_id = v.completion_id AND j.run_id = $run_id AND j.spec_id IS NOT NULL
WHERE v.accepted;
