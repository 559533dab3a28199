-- The number of the next attempt at a training, as the rollouts of those before it tell.
SELECT coalesce(max(attempt) + 1, 0) AS attempt
FROM rollouts_raw
WHERE checkpoint_id = $checkpoint_id;
