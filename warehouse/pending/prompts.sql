-- Prompts whose category the judge model has yet to choose. Reads relation
-- `unassigned(block_key, prompt)` of the rows that a run collected without a category. A choice that
-- is unread, or an engine error, is asked for again: within the run while retries are left, and once
-- in each later run while attempts are left.
CREATE OR REPLACE TEMP TABLE pending_units AS
WITH tried AS (
    SELECT
        u.prompt.prompt_id AS prompt_id,
        greatest(u.prompt.revision, coalesce(p.revision + 1, 0)) AS revision,
        coalesce(p.revision >= u.prompt.revision, false) AS is_of_this_run,
        coalesce(p.status IN ('ok', 'unassigned'), false) AS is_settled,
        -- Choices of another judge, or among other policies, do not count.
        CASE
            WHEN p.assigning_id = $assigning_id AND NOT is_settled THEN p.assigning_attempt + 1
            ELSE 0
        END AS attempt,
        attempt > 0 AND p.status = 'unread' AS was_unread
    FROM unassigned AS u
    LEFT JOIN prompts_all AS p ON p.prompt_id = u.prompt.prompt_id
)
SELECT prompt_id, revision, attempt, was_unread, [0] AS sample_indices
FROM tried
WHERE CASE
    WHEN is_of_this_run THEN NOT is_settled AND attempt <= $retries
    ELSE attempt <= $retries OR attempt < $error_attempts
END;

SELECT u.block_key, u.prompt, m.revision, m.attempt AS assigning_attempt, m.was_unread
FROM unassigned AS u
JOIN pending_units AS m ON m.prompt_id = u.prompt.prompt_id;
