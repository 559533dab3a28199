-- Settings of the recipes: samples, sampling and template of the generator; samples of each judge,
-- number of judges, threshold, mode, template and sampling; the choice of examples.
SELECT
    recipe,
    num_samples,
    resolved_recipe->>'$.generate.template' AS template,
    resolved_recipe->>'$.generate.sampling' AS sampling,
    num_judgements,
    greatest(len(jury), 1) AS num_judges,
    threshold,
    resolved_recipe->>'$.judge.mode' AS mode,
    resolved_recipe->>'$.judge.template' AS judge_template,
    resolved_recipe->>'$.judge.sampling' AS judge_sampling,
    resolved_recipe->>'$.judge.criteria' AS criteria,
    resolved_recipe->>'$.curate' AS curate,
    resolved_recipe->>'$.license' AS license
FROM latest_plans
ORDER BY recipe;
