-- The trainings that have rollouts, with their numbers of steps.
SELECT checkpoint_id, max(step) AS last_step, count(*) AS num_rollouts
FROM rollouts
GROUP BY checkpoint_id
ORDER BY checkpoint_id;
