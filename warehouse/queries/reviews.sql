-- Reviews of current completions by reviewer and decision, beside the judge's verdict on the same ones.
WITH judged AS (
    -- A completion that several recipes judge has the best of its verdicts.
    SELECT completion_id, verdict
    FROM verdicts
    QUALIFY row_number() OVER (
        PARTITION BY completion_id
        ORDER BY verdict_rank(verdict) DESC, judging_id, spec_id, threshold, num_judgements
    ) = 1
)
SELECT
    r.reviewer, r.decision,
    count(*) AS num_reviews,
    count(*) FILTER (r.note <> '') AS num_with_note,
    count(*) FILTER (v.verdict = 'accepted') AS num_judge_accepted,
    count(*) FILTER (v.verdict = 'rejected') AS num_judge_rejected,
    count(*) FILTER (w.review_verdict = 'disputed') AS num_disputed,
    max(r.created_at) AS latest
FROM reviews AS r
SEMI JOIN completions AS c ON c.completion_id = r.completion_id
JOIN reviewed AS w ON w.completion_id = r.completion_id
LEFT JOIN judged AS v ON v.completion_id = r.completion_id
GROUP BY r.reviewer, r.decision
ORDER BY r.reviewer, r.decision;
