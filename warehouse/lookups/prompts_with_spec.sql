-- Prompts of a set in which a turn holds the spec that the completion was made under.
SELECT count(*) AS num_prompts
FROM examples_raw AS e
JOIN specs AS s USING (spec_id)
WHERE e.set_id = $set_id
    AND list_bool_or(list_transform(e.prompt, lambda turn: contains(turn.content, s.text)));
