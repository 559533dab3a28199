-- Precision and recall of the judges of each recipe at each threshold and number of samples, against
-- what people decided of the same completions: of each judge alone and, of a jury, of all together, at
-- k samples of each. A completion is accepted if all of those samples were read and none is under the
-- threshold. A judge that raced was not asked again after a score under its own threshold, so that
-- recall at lower thresholds is a lower bound. `low` and `high` bound precision, `recall_low` and
-- `recall_high` recall: Wilson's 95 % intervals, which count prompts as independent. Completions that
-- share a text share its samples. `tokens` is the mean of what the samples of a completion cost, in
-- output tokens.
WITH golden AS (
    SELECT r.completion_id, c.prompt_id, c.generation_id, r.review_verdict = 'accepted' AS is_right
    FROM reviewed AS r
    JOIN completions AS c USING (completion_id)
    WHERE r.review_verdict IN ('accepted', 'rejected')
),
seats AS (
    SELECT DISTINCT
        recipe, generation_id, judging_id, spec_id, num_each, judges, unnest(judges) AS judge_id
    FROM plans
    -- Scores that came with traces are of no judge of the recipe.
    WHERE judgement_spec_id IS NOT NULL
),
sittings AS (
    SELECT recipe, generation_id, judging_id, spec_id, num_each, [judge_id] AS members FROM seats
    UNION
    SELECT recipe, generation_id, judging_id, spec_id, num_each, list_sort(judges)
    FROM seats
    WHERE len(judges) > 1
),
given AS MATERIALIZED (
    SELECT DISTINCT
        judging_id, judge_id, model, completion_id, spec_id, sample_index, score,
        num_output_tokens AS tokens
    FROM votes
    WHERE completion_id IN (SELECT completion_id FROM golden) AND spec_id IS NOT NULL
),
names AS (
    SELECT judge_id, any_value(model) AS model
    FROM given
    GROUP BY judge_id
),
labelled AS (
    SELECT members, string_agg(n.model, ' + ' ORDER BY n.model) AS grader
    FROM (SELECT DISTINCT members, unnest(members) AS judge_id FROM sittings) AS m
    JOIN names AS n USING (judge_id)
    GROUP BY members
),
asked AS (
    SELECT
        s.recipe, s.members, k.k, o.completion_id, o.prompt_id, o.is_right,
        count(g.score) AS num_read,
        floor(min(g.score)) AS lowest,
        sum(g.tokens) AS tokens
    FROM sittings AS s
    CROSS JOIN range(1, s.num_each + 1) AS k (k)
    JOIN golden AS o USING (generation_id)
    JOIN given AS g
        ON g.completion_id = o.completion_id
       AND g.spec_id = s.spec_id
       AND g.judging_id = s.judging_id
       AND g.sample_index < k.k
       AND list_contains(s.members, g.judge_id)
    GROUP BY ALL
),
lowest AS (
    SELECT *, CASE WHEN num_read = k * len(members) THEN lowest ELSE -1 END AS rating
    FROM asked
),
counted AS (
    SELECT
        l.recipe, l.members, l.k, t.threshold,
        count(*) AS num_answers,
        count(*) FILTER (is_right) AS num_gold,
        count(*) FILTER (rating >= threshold) AS num_accepted,
        count(*) FILTER (is_right AND rating >= threshold) AS num_both,
        count(DISTINCT prompt_id) FILTER (is_right) AS num_gold_prompts,
        count(DISTINCT prompt_id) FILTER (rating >= threshold) AS num_accepted_prompts,
        avg(tokens) AS tokens
    FROM lowest AS l
    CROSS JOIN range(1, 11) AS t (threshold)
    GROUP BY ALL
),
shares AS (
    SELECT
        *,
        num_both / nullif(num_accepted, 0) AS precision,
        num_both / nullif(num_gold, 0) AS recall,
        wilson(precision, num_accepted_prompts) AS precision_bounds,
        wilson(recall, num_gold_prompts) AS recall_bounds
    FROM counted
)
SELECT
    s.recipe, l.grader, NULL::VARCHAR AS criterion, 'reviews' AS gold, s.threshold, s.k,
    round(precision, 4) AS precision,
    round(precision_bounds.low, 4) AS low,
    round(precision_bounds.high, 4) AS high,
    round(recall, 4) AS recall,
    round(recall_bounds.low, 4) AS recall_low,
    round(recall_bounds.high, 4) AS recall_high,
    round(2 * num_both / nullif(num_accepted + num_gold, 0), 4) AS f1,
    num_accepted, num_gold, num_answers,
    round(tokens, 1) AS tokens,
    NULL::DOUBLE AS tokens_racing,
    len(s.members) AS num_judges
FROM shares AS s
JOIN labelled AS l USING (members)
ORDER BY s.recipe, num_judges, l.grader, s.k, s.threshold;
