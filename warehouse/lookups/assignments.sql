-- Prompts whose category is left to the judge model, by status, with the most frequent reason of each;
-- `missing` if it was never asked. Reads relation `unassigned(block_key, prompt)`.
SELECT
    coalesce(p.status, 'missing') AS status,
    count(*) AS num_prompts,
    mode(p.reason) AS reason
FROM unassigned AS u
LEFT JOIN prompts_all AS p ON p.prompt_id = u.prompt.prompt_id
GROUP BY ALL
ORDER BY ALL;
