-- Prompts whose category is left to the judge model, by status; `missing` if it was never asked.
-- Reads relation `unassigned(block_key, prompt)`.
SELECT coalesce(p.status, 'missing') AS status, count(*) AS num_prompts
FROM unassigned AS u
LEFT JOIN prompts_all AS p ON p.prompt_id = u.prompt.prompt_id
GROUP BY ALL
ORDER BY ALL;
