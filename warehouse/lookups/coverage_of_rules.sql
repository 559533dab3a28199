-- What exercises each of these rules of a pack, in their order; zeros for a rule that nothing does.
WITH rules AS (
    SELECT unnest($rule_ids) AS rule_id, unnest(range(len($rule_ids))) AS place
)
SELECT
    r.rule_id,
    coalesce(c.num_prompts, 0) AS num_prompts,
    coalesce(c.num_drafted, 0) AS num_drafted,
    coalesce(c.num_completions, 0) AS num_completions,
    coalesce(c.num_accepted, 0) AS num_accepted,
    c.mean_score,
    c.score_deviation,
    coalesce(c.num_answers, 0) AS num_answers,
    c.mean_grade
FROM rules AS r
LEFT JOIN (FROM rule_coverage WHERE pack = $pack) AS c USING (rule_id)
ORDER BY r.place;
