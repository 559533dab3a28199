-- Share of completions that the judge accepts, by category and ideal response.
WITH rows AS (
    SELECT spec_key(p.categories) AS category, p.ideal_response, v.verdict
    FROM verdicts AS v
    JOIN completions AS c USING (completion_id)
    JOIN prompts AS p USING (prompt_id)
)
SELECT
    category,
    coalesce(ideal_response, 'unknown') AS ideal_response,
    count(*) AS num_completions,
    count(*) FILTER (verdict = 'accepted') AS num_accepted,
    count(*) FILTER (verdict = 'rejected') AS num_rejected,
    count(*) FILTER (verdict = 'unjudged') AS num_unjudged,
    count(*) FILTER (verdict = 'failed') AS num_failed,
    round(count(*) FILTER (verdict = 'accepted') / count(*), 3) AS acceptance
FROM rows
GROUP BY ALL
ORDER BY category, ideal_response;
