-- Findings of the monitors by kind of row, model, checkpoint and category: share of reasoning that cites
-- rules that no rule is (`invented`) or that the spec of its categories lacks (`elsewhere`), decides on
-- the opposite of what the answer does (`reversed`), speaks of being graded, tested or trained
-- (`grading`), or of a policy text as one at hand (`policy_text`); `flagged` is any of them. Shares are
-- of the `num_read` that the monitors have read; the next refresh or evaluation reads the others.
SELECT
    kind, model, checkpoint_id, category,
    count(*) AS num_chains,
    count(monitoring_id) AS num_read,
    round(avg(cites_invented::INT), 4) AS invented,
    round(avg(cites_elsewhere::INT), 4) AS elsewhere,
    round(avg(is_reversed::INT), 4) AS reversed,
    round(avg(speaks_of_grading::INT), 4) AS grading,
    round(avg(speaks_of_policy_text::INT), 4) AS policy_text,
    round(avg(is_flagged::INT), 4) AS flagged
FROM monitored
GROUP BY kind, model, checkpoint_id, category
ORDER BY kind, model, checkpoint_id, category;
