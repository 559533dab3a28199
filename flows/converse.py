"""Attacks over several turns on the models of an evaluation."""

from collections.abc import Sequence

import duckdb

from flows.arms import Asked, Grader
from flows.recipe import Recipe
from flows.run import RunContext
from flows.steps import makes, run_stage
from tasks.engine.cluster import start_ray
from tasks.engine.pool import EnginePool
from tasks.engine.replicas import Replicas
from tasks.engine.requests import EngineError
from tasks.evaluation import graders as grading
from tasks.evaluation import multiturn as conversing
from tasks.evaluation import suites
from warehouse.catalog import Pending


def attacked(recipe: Recipe, asked: Sequence[Asked]) -> list[Asked]:
    """The arms that are attacked: those without policies and without a limit of their own."""
    config = recipe.evaluate
    if config is None or config.converse is None:
        return []
    return [
        one
        for one in asked
        if one.arm.config.context == "none" and one.arm.config.budget == config.budget
    ]


def needs_model(recipe: Recipe) -> bool:
    """Whether an attack needs the judge's model beside the one that is attacked."""
    config = recipe.evaluate
    if config is None or config.converse is None:
        return False
    scorer = next(one for one in config.graders if one.name == config.converse.grader)
    return config.converse.script is None or scorer.rubric is not None


def attacking_id(run: RunContext, one: Asked, graders: Sequence[Grader]) -> str:
    """What all exchanges of the attack on an arm share."""
    assert run.recipe.evaluate is not None
    config = run.recipe.evaluate.converse
    assert config is not None
    said = (
        repr(conversing.ScriptedAttacker.load(config.script))
        if config.script is not None
        else run.version(run.recipe.judging_engine)
    )
    scorer = _scorer(config, graders)
    return conversing.attacking_id(
        config, sampling=one.arm.config.sampling, by=f"{said} {scorer.grading_id}"
    )


def _scorer(config: conversing.MultiturnConfig, graders: Sequence[Grader]) -> Grader:
    return next(one for one in graders if one.config.name == config.grader)


@makes("converse", "exchanges", of=("cases", "checkpoints"))
def converse(
    run: RunContext,
    asked: Sequence[Asked],
    built: Sequence[suites.Suite],
    graders: Sequence[Grader],
) -> None:
    """Grows the trees of multi-turn attacks that are missing."""
    recipe = run.recipe
    assert recipe.evaluate is not None
    config = recipe.evaluate.converse
    assert config is not None
    scorer = _scorer(config, graders)
    suite = next(one for one in built if one.name == config.suite)
    beside = EnginePool()
    helper = None
    try:
        if needs_model(recipe):
            helper = _start_beside(run, asked, beside)
        attacker: conversing.Attacker
        if config.script is not None:
            attacker = conversing.ScriptedAttacker.load(config.script)
        else:
            assert helper is not None
            attacker = conversing.ModelAttacker(helper, config.sampling)
        for one in asked:
            name = attacking_id(run, one, graders)
            work = conversing.MultiturnWork(
                config=config,
                attacker=attacker,
                scorer=grading.make_scorer(scorer.config, scorer.rubric, helper),
                attacking_id=name,
                sampling=one.arm.config.sampling,
                model=one.arm.model,
                checkpoint_id=one.arm.checkpoint_id,
                run_id=run.id,
            )

            def pending(
                connection: duckdb.DuckDBPyConnection, name: str = name, model: str = one.arm.model
            ) -> Pending:
                return conversing.pending(
                    connection,
                    config,
                    attacking_id=name,
                    model=model,
                    suite_version=suite.version,
                    retries=recipe.stage.retries,
                )

            run_stage(run, f"converse {one.arm.label}", work, one.engine, pending)
    finally:
        beside.close()


def _start_beside(run: RunContext, asked: Sequence[Asked], beside: EnginePool) -> Replicas:
    """The judge's engine, which attacks or scores while the engine that is attacked answers."""
    import ray

    start_ray()
    run.engines.close()
    judge = run.recipe.judging_engine
    wanted = judge.num_gpus + max(one.engine.num_gpus for one in asked)
    found = ray.cluster_resources().get("GPU", 0)
    if wanted > found:
        raise EngineError(
            f"an attack by a model, or scored by one, needs {wanted} GPUs, for judge and attacked "
            f"side by side, and the Ray cluster has {found:g}; give converse a script and a "
            "function as its grader"
        )
    handles = beside.start_for(judge)
    beside.wait()
    return Replicas(handles)
