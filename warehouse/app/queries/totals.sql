-- How many completions and prompts the filters leave, of how many, and what became of them.
SELECT
    (SELECT count(*) FROM app.rows) AS num_all,
    count(*) AS num_completions,
    count(DISTINCT prompt_id) AS num_prompts,
    count(*) FILTER (verdict = 'accepted') AS num_accepted,
    round(num_accepted / nullif(num_completions, 0), 3) AS acceptance,
    round(avg(min_score), 2) AS mean_lowest_score
FROM chosen_rows;
