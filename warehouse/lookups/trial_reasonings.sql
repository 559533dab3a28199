-- The last turn of each prompt, and the reasoning of every sample of it that can be used.
SELECT
    p.prompt_id,
    p.categories[1] AS category,
    p.ideal_response AS expected,
    p.source,
    p.messages[-1].content AS prompt,
    list(c.reasoning ORDER BY c.sample_index) AS reasonings
FROM completions_all AS c
JOIN prompts AS p USING (prompt_id)
WHERE c.status = 'ok'
GROUP BY ALL
ORDER BY p.prompt_id;
