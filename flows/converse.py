"""Attacks over several turns on the models of an evaluation."""

import os
from collections.abc import Sequence

import duckdb
from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.arms import Asked, Grader
from flows.refresh import run_stage
from flows.run import RunContext
from tasks import converse as conversing
from tasks import graders as grading
from tasks import stage, suites
from tasks.engine import Engines


@task(name="converse", cache_policy=NO_CACHE)
def converse(
    run: RunContext,
    asked: Sequence[Asked],
    built: Sequence[suites.Suite],
    graders: Sequence[Grader],
) -> None:
    """Grows the trees of multi-turn attacks that are missing, on every arm without policies."""
    recipe = run.recipe
    config = recipe.evaluate.converse if recipe.evaluate else None
    assert config is not None
    [suite] = [one for one in built if one.name == config.suite]
    [grader] = [one for one in graders if one.config.name == config.grader]
    beside = Engines()
    try:
        needs_model = config.script is None or grader.config.rubric is not None
        helper = None
        if needs_model:
            stage.start_ray(os.environ.get("RAY_ADDRESS"))
            helper = stage.RemoteEngine(beside.serving(recipe.judging_engine)[0])
            beside.wait()
        attacker: conversing.Attacker
        if config.script is not None:
            attacker = conversing.ScriptedAttacker.load(config.script)
            said = repr(attacker)
        else:
            assert helper is not None
            attacker = conversing.ModelAttacker(helper, config.sampling)
            said = run.version(recipe.judging_engine)
        scorer = grading.make_scorer(grader.config, grader.rubric, helper)
        for one in asked:
            if one.arm.config.context != "none" or one.arm.config.budget is not None:
                continue
            sampling = one.arm.config.sampling
            name = conversing.attacking_id(
                config, sampling=sampling, by=f"{said} {grader.grading_id}"
            )
            work = conversing.Converse(
                config=config,
                attacker=attacker,
                scorer=scorer,
                attacking_id=name,
                sampling=sampling,
                model=one.arm.model,
                checkpoint_id=one.arm.checkpoint_id,
                run_id=run.id,
            )

            def pending(
                connection: duckdb.DuckDBPyConnection, name: str = name, model: str = one.arm.model
            ) -> stage.Pending:
                return conversing.pending(
                    connection,
                    config,
                    attacking_id=name,
                    model=model,
                    suite_version=suite.version,
                    retries=recipe.stage.retries,
                )

            seed = "" if one.arm.seed is None else f", seed {one.arm.seed}"
            run_stage(run, f"converse {one.arm.name}{seed}", work, one.engine, pending)
    finally:
        beside.close()
