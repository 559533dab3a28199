-- Prompts of current completions that did not leave, because a suite asks them or because their
-- source is of another split than `train`.
SELECT count(*) AS num_prompts
FROM leaving_prompts AS l
SEMI JOIN completions AS c USING (prompt_id)
WHERE is_held_out;
