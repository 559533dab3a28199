-- What is known to limit the data: verdicts that are missing or held, judged prompts without an
-- accepted completion, judges that judged what they had generated, prompts without a label; and how
-- many completions people have reviewed.
WITH judged AS (
    -- The same weights may be served with other settings, which follow the version.
    SELECT DISTINCT
        l.completion_id, split_part(j.model, ' {', 1) = split_part(l.model, ' {', 1) AS is_own
    FROM leaving AS l
    JOIN votes AS j ON l.completion_id = j.completion_id AND l.judging_id = j.judging_id
),
fates AS (
    SELECT prompt_id, bool_or(verdict = 'accepted') AS has_accepted
    FROM leaving
    WHERE verdict IN ('accepted', 'rejected')
    GROUP BY prompt_id
)
SELECT
    (SELECT count(*) FROM leaving) AS num_completions,
    (SELECT count(*) FROM leaving WHERE verdict = 'unjudged') AS num_unjudged,
    (SELECT count(*) FROM leaving WHERE verdict = 'held') AS num_held,
    (SELECT count(*) FROM leaving WHERE review IS NOT NULL) AS num_reviewed,
    (SELECT count(*) FROM fates) AS num_judged_prompts,
    (SELECT count(*) FROM fates WHERE NOT has_accepted) AS num_without_accepted,
    (SELECT count(DISTINCT completion_id) FROM judged WHERE is_own) AS num_judged_by_own_model,
    (SELECT count(*) FROM leaving WHERE ideal_response IS NULL) AS num_without_ideal_response;
