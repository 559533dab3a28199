-- Every metric by arm and suite, with its interval over prompts and its number of unread answers.
WITH answered AS MATERIALIZED (
    FROM metric_values
),
prompts AS MATERIALIZED (
    SELECT
        {arm: arm, suite: suite, metric: metric, slice: slice, grader: grader} AS member,
        prompt_id,
        avg(value) AS value,
        avg(lower) AS lower,
        avg(upper) AS upper,
        count(*) AS num_answers,
        count(*) - count(value) AS num_unread
    FROM answered
    GROUP BY ALL
),
bounds AS (
    SELECT
        unnest(member),
        round(avg(lower), 4) AS lower,
        round(avg(upper), 4) AS upper,
        sum(num_answers)::BIGINT AS num_answers,
        sum(num_unread)::BIGINT AS num_unread
    FROM prompts
    GROUP BY member
),
seed_prompts AS (
    SELECT arm, suite, metric, slice, grader, seed, prompt_id, avg(value) AS value
    FROM answered
    GROUP BY ALL
),
seed_means AS (
    SELECT arm, suite, metric, slice, grader, seed, avg(value) AS mean
    FROM seed_prompts
    GROUP BY ALL
),
spreads AS (
    SELECT
        arm, suite, metric, slice, grader,
        count(*) AS seeds,
        round(stddev_samp(mean), 4) AS seed_sd
    FROM seed_means
    GROUP BY ALL
)
SELECT
    arm, suite, metric, slice, grader, i.mean, i.low, i.high, b.lower, b.upper, i.num_prompts,
    b.num_answers, b.num_unread, s.seeds, s.seed_sd
FROM intervals('prompts') AS i
JOIN bounds AS b USING (arm, suite, metric, slice, grader)
JOIN spreads AS s USING (arm, suite, metric, slice, grader)
JOIN arm_order AS o USING (arm)
ORDER BY suite, metric, slice <> 'all', slice, grader, o.place, arm;
