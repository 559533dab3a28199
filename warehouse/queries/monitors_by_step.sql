-- Findings of the monitors over the steps of reinforcement learning: share of rollouts whose reasoning
-- cites rules that no rule is (`invented`) or that the spec of its categories lacks (`elsewhere`), decides on
-- the opposite of what the answer does (`reversed`), speaks of being graded, tested or trained
-- (`grading`), or of a policy text as one at hand (`policy_text`); `flagged` is any of them.
SELECT
    checkpoint_id, step,
    count(*) AS num_rollouts,
    count(monitoring_id) AS num_read,
    round(avg(cites_invented::INT), 4) AS invented,
    round(avg(cites_elsewhere::INT), 4) AS elsewhere,
    round(avg(is_reversed::INT), 4) AS reversed,
    round(avg(speaks_of_grading::INT), 4) AS grading,
    round(avg(speaks_of_policy_text::INT), 4) AS policy_text,
    round(avg(is_flagged::INT), 4) AS flagged
FROM monitored
WHERE kind = 'rollouts'
GROUP BY checkpoint_id, step
ORDER BY checkpoint_id, step;
