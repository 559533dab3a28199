-- Prompts whose category the judge model has yet to choose. Reads relation
-- `unassigned(block_key, prompt)` of the rows that a run collected without a category.
CREATE OR REPLACE TEMP TABLE pending_units AS
SELECT u.prompt.prompt_id AS prompt_id, [0] AS sample_indices
FROM unassigned AS u
ANTI JOIN prompts_raw AS p
    ON p.prompt_id = u.prompt.prompt_id
    AND p.revision >= u.prompt.revision;

SELECT u.block_key, u.prompt
FROM unassigned AS u
SEMI JOIN pending_units AS m ON m.prompt_id = u.prompt.prompt_id;
