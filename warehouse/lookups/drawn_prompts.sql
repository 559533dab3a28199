-- Prompts of one category each, up to $num_prompts of each category, in the order of their ids.
SELECT *
FROM prompts
WHERE len(categories) = 1
QUALIFY row_number() OVER (PARTITION BY categories ORDER BY prompt_id) <= $num_prompts
ORDER BY prompt_id;
