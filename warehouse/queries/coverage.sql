-- Coverage of every rule of the current specs, the least exercised first: prompts, completions that
-- cite it, mean and standard deviation of their judge scores, and grades of answers that cite it.
WITH current AS (
    SELECT *
    FROM specs
    WHERE detail = 'full'
      AND (spec_id IN (SELECT spec_id FROM plans) OR NOT EXISTS (FROM latest_plans))
),
rules AS (
    SELECT pack, categories, text, unnest(rule_ids) AS rule_id
    FROM current
),
named AS (
    SELECT
        pack, rule_id,
        -- A spec of two categories has the rules of both.
        arg_min(spec_key(categories), len(categories)) AS category,
        any_value(regexp_extract(text, '\[' || rule_id || ', ([a-z_]+)', 1)) AS outcome
    FROM rules
    GROUP BY pack, rule_id
)
SELECT
    n.pack, n.category, n.rule_id, n.outcome,
    coalesce(c.num_prompts, 0) AS num_prompts,
    coalesce(c.num_drafted, 0) AS num_drafted,
    coalesce(c.num_completions, 0) AS num_completions,
    coalesce(c.num_accepted, 0) AS num_accepted,
    c.mean_score,
    c.score_deviation,
    coalesce(c.num_answers, 0) AS num_answers,
    c.mean_grade
FROM named AS n
LEFT JOIN rule_coverage AS c USING (pack, rule_id)
ORDER BY num_prompts, num_completions, n.pack, n.category, n.rule_id;
