-- The training of the checkpoint, and the data that it learned from.
SELECT
    checkpoint_id, stage, status, reason, model, parent, parent_id, set_id, data_fingerprint,
    num_rows, num_steps, recipe, run_id, git_commit, seconds, created_at
FROM checkpoints
WHERE checkpoint_id = $checkpoint_id;
