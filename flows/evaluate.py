"""checkpoints → answers → evaluations → report: models side by side, without any spec.

An evaluation is arms × suites × graders. What it is made of stands in the record of its run, so
that every table can be asked for again later, and of whatever run.
"""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import pyarrow as pa
from prefect import flow, task
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.cache_policies import NO_CACHE

from flows import report as reporting
from flows.progress import artifact_key
from flows.recipe import SUITES, Recipe, RecipeError
from flows.refresh import run_stage
from flows.run import RunContext, home_at, open_run
from specs.attacks import Marks
from specs.rubrics import Adherence, load_adherence
from tasks import answer as answering
from tasks import converse as conversing
from tasks import evaluate as evaluating
from tasks import stage, suites
from tasks.answer import Arm
from tasks.chats import Chats
from tasks.engine import EngineConfig, Engines
from warehouse.catalog import find_checkpoints, latest_training
from warehouse.tables import Checkpoint


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What an evaluation came to."""

    run_id: str
    home: str
    table: list[dict[str, Any]]
    """What `precept ask evaluation` answers, without the arms whose reasoning was limited."""
    models_loaded: int
    num_answered: int
    """Answers made in this run; the others were there."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An arm with the engine that serves its model."""

    arm: Arm
    engine: EngineConfig


@flow(
    name="evaluate", flow_run_name="evaluate {recipe.name}", persist_result=False, log_prints=False
)
def evaluate(
    recipe: Recipe, home: str | None = None, checkpoints: list[str] | None = None
) -> Evaluated:
    """Evaluates the base model and checkpoints: those named, else those of the latest training."""
    config = check(recipe)
    with open_run("evaluate", recipe, home_at(home)) as run:
        warehouse = run.warehouse()
        names = latest_training(warehouse, recipe.name) if checkpoints is None else checkpoints
        base = Arm(
            name="base",
            model=run.version(recipe.engine),
            checkpoint_id=None,
            seed=None,
            config=config,
        )
        asked = [Asked(base, recipe.engine)]
        made = find_checkpoints(warehouse, names)
        stages = [one.stage.upper() for one in made]
        for number, checkpoint in enumerate(made):
            name = "+".join(stages[: number + 1])
            asked.append(of_checkpoint(run, checkpoint, name=name, config=config))
        return evaluate_arms(run, asked, probed=[one.arm.name for one in asked])


def check(recipe: Recipe) -> evaluating.EvaluateConfig:
    """The recipe's evaluation, refused where anything of it cannot be used."""
    config = recipe.evaluate
    if config is None:
        raise RecipeError(f"recipe {recipe.name} evaluates nothing; give it a section [evaluate]")
    for grader in config.graders:
        if grader.function:
            evaluating.load_grader(grader.function)
    for name in config.suites:
        suites.load_suite(name, SUITES)
    return config


def of_checkpoint(
    run: RunContext,
    checkpoint: Checkpoint,
    *,
    name: str,
    config: answering.AnswerConfig,
    seed: int | None = None,
) -> Asked:
    """A trained model as an arm."""
    arm = Arm(
        name=name,
        model=checkpoint.model,
        checkpoint_id=checkpoint.checkpoint_id,
        seed=seed,
        config=config,
    )
    return Asked(arm, run.recipe.engine.of_folder(f"{run.home.root}/{checkpoint.path}"))


def evaluate_arms(
    run: RunContext, asked: Sequence[Asked], *, probed: Sequence[str] = ()
) -> Evaluated:
    """Makes what is missing of an evaluation, and says what it came to.

    `probed` are the names of arms whose reasoning is tampered with, where the recipe says how;
    what policies stand in their prompts is edited too.
    """
    recipe = run.recipe
    config = check(recipe)
    marks = find_marks(recipe.engine, config)
    built = build_suites(run, marks)
    probes = [one for arm in asked if arm.arm.name in probed for one in _probes(recipe, arm)]
    versions = [suite.version for suite in built]
    everyone = [*asked, *probes]
    graders = _graders(run, built)
    run.note("evaluation", _plan(run, everyone, built, graders))
    # The judge's own model comes last, so that it need not be loaded twice.
    for one in sorted(
        everyone, key=lambda one: (one.engine == recipe.judging_engine, one.arm.probe != "none")
    ):
        if one.arm.model == answering.RECORDED:
            store_recorded(run, one, built)
        else:
            answer(run, one, versions)
    for grader in graders:
        grade(run, grader, everyone, versions)
    if config.converse:
        converse(run, asked, built, graders)
    report = publish(run)
    unlimited = {one.arm.name for one in asked if one.arm.config.budget is None}
    stages = [name for name in run.figures if name.startswith("answer ")]
    return Evaluated(
        run_id=run.id,
        home=run.home.url,
        table=[row for row in report.tables["evaluation"] if row["arm"] in unlimited],
        models_loaded=run.engines.num_started,
        num_answered=sum(run.figures[name]["rows"] for name in stages),
    )


@task(name="publish", cache_policy=NO_CACHE)
def publish(run: RunContext) -> reporting.Report:
    """Publishes the report and its plots to Prefect."""
    report = reporting.gather(run.warehouse(), run.id)
    create_table_artifact(
        key="evaluation", table=report.tables["evaluation"], description="Models side by side"
    )
    create_markdown_artifact(key="report", markdown=reporting.as_markdown(report))
    for title, picture in reporting.pictures(report):
        create_image_artifact(
            key=artifact_key(title),
            image_url=f"data:image/png;base64,{base64.b64encode(picture).decode()}",
            description=title,
        )
    return report


def _probes(recipe: Recipe, asked: Asked) -> list[Asked]:
    """The arm again with its reasoning tampered with; rules are edited where it is shown them."""
    if recipe.evaluate is None or recipe.evaluate.faithfulness is None:
        return []
    shown = asked.arm.config.context == "category"
    return [
        replace(asked, arm=replace(asked.arm, probe=probe, config=_once(asked.arm.config)))
        for probe in answering.PROBES
        if shown or probe != "edited"
    ]


def _once(config: answering.AnswerConfig) -> answering.AnswerConfig:
    return config.model_copy(update={"samples": 1})


def find_marks(engine: EngineConfig, config: evaluating.EvaluateConfig) -> Marks | None:
    """The marks of the model's chat template, where a suite has attacks that forge them."""
    from specs.attacks import find_attacks

    wanted = [load for name in config.suites if (load := suites.load_suite(name, SUITES))]
    if not any(attack.needs_marks for one in wanted for attack in find_attacks(one.attacks)):
        return None
    frame = Chats.of(engine).frame
    return Marks(
        turn=frame.prompt_ending, opening=frame.opening, between=frame.between, ending=frame.ending
    )


@task(name="build suites", cache_policy=NO_CACHE)
def build_suites(run: RunContext, marks: Marks | None) -> list[suites.Suite]:
    """Renders every suite and stores the cases that are new."""
    config = check(run.recipe)
    built = []
    for name in config.suites:
        suite = suites.build_suite(suites.load_suite(name, SUITES), marks=marks, limit=config.limit)
        suites.store(run.warehouse(), suite, run.home)
        run.figures.setdefault("suites", {})[suite.name] = {
            "cases": len(suite.cases),
            "faulty": suite.num_faulty,
        }
        built.append(suite)
    return built


@dataclass(frozen=True, slots=True)
class Grader:
    """A grader of the recipe, ready to be asked."""

    config: evaluating.GraderConfig
    rubric: Any
    grading_id: str
    spec_ids: dict[str, str]
    """By categories, the spec that it is shown; empty where it is shown none."""


def _graders(run: RunContext, built: Sequence[suites.Suite]) -> list[Grader]:
    recipe = run.recipe
    assert recipe.evaluate is not None
    file = recipe.pack_folder / "adherence.toml"
    adherence: Adherence | None = load_adherence(recipe.pack_folder) if file.is_file() else None
    model = run.version(recipe.judging_engine)
    sets = {tuple(case.categories) for suite in built for case in suite.cases}
    categories = ["+".join(one) for one in sets]
    known = {kept for one in sets if (kept := tuple(n for n in one if n in run.pack.policies))}
    graders = []
    for config in recipe.evaluate.graders:
        rubric = evaluating.make_rubric(config, run.pack, adherence) if config.rubric else None
        name = evaluating.grading_id(config, model=model, rubric=rubric)
        shown = rubric.spec_ids(categories) if isinstance(rubric, evaluating.PolicyRubric) else {}
        run.specs(known)
        graders.append(Grader(config, rubric, name, shown))
    return graders


def _plan(
    run: RunContext,
    asked: Sequence[Asked],
    built: Sequence[suites.Suite],
    graders: Sequence[Grader],
) -> dict[str, Any]:
    """What the evaluation is made of, as the views over it read it."""
    recipe = run.recipe
    assert recipe.evaluate is not None
    places = {
        name: place for place, name in enumerate(dict.fromkeys(one.arm.name for one in asked))
    }
    return {
        "arms": [
            {
                "position": places[one.arm.name],
                "arm": one.arm.name,
                "seed": one.arm.seed,
                "model": one.arm.model,
                "checkpoint_id": one.arm.checkpoint_id,
                "answering_id": one.arm.answering_id(run.pack),
                "context": one.arm.config.context,
                "budget": one.arm.config.budget,
                "probe": one.arm.probe,
            }
            for one in asked
        ],
        "suites": [{"suite": one.name, "suite_version": one.version} for one in built],
        "graders": [
            {
                "grader": one.config.name,
                "grading_id": one.grading_id,
                "saw": one.config.saw if one.rubric else "answer+reasoning",
                "reduce": one.config.reduce,
                "threshold": recipe.judge.threshold / 10,
                "num_votes": one.config.samples,
            }
            for one in graders
        ],
        "rules": [
            {"rule_id": rule.id, "category": name, "outcome": rule.outcome.value}
            for name, policy in run.pack.policies.items()
            for rule in policy.rules
        ],
        "samples": recipe.evaluate.samples,
        "converse": recipe.evaluate.converse and recipe.evaluate.converse.suite,
    }


@task(name="answer", cache_policy=NO_CACHE)
def answer(run: RunContext, asked: Asked, versions: Sequence[str]) -> stage.Report:
    """Makes the answers of one arm that are missing."""
    recipe, arm = run.recipe, asked.arm
    assert recipe.evaluate is not None
    faithfulness = recipe.evaluate.faithfulness

    def pending(connection: duckdb.DuckDBPyConnection) -> stage.Pending:
        if arm.probe != "none" and faithfulness:
            return answering.pending_probes(
                connection,
                arm,
                run.pack,
                suite_versions=versions,
                limit=faithfulness.limit,
                retries=recipe.stage.retries,
            )
        return answering.pending(
            connection,
            arm,
            run.pack,
            suite_versions=versions,
            retries=recipe.stage.retries,
            wave_rows=recipe.stage.wave_rows,
        )

    seed = "" if arm.seed is None else f", seed {arm.seed}"
    probe = "" if arm.probe == "none" else f", {arm.probe}"
    work = answering.Answering(arm=arm, pack=run.pack, run_id=run.id)
    return run_stage(run, f"answer {arm.name}{seed}{probe}", work, asked.engine, pending)


@task(name="recorded answers", cache_policy=NO_CACHE)
def store_recorded(run: RunContext, asked: Asked, built: Sequence[suites.Suite]) -> None:
    """Takes up the answers that came with their suites."""
    for suite in built:
        answering.store_recorded(
            run.warehouse(),
            suite.recorded,
            arm=asked.arm,
            pack=run.pack,
            home=run.home,
            run_id=run.id,
        )


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
        scorer = evaluating.make_scorer(grader.config, grader.rubric, helper)
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


@task(name="grade", cache_policy=NO_CACHE)
def grade(run: RunContext, grader: Grader, asked: Sequence[Asked], versions: Sequence[str]) -> None:
    """Makes the votes of one grader that are missing, over the answers of all arms."""
    recipe, config = run.recipe, grader.config
    assert recipe.evaluate is not None
    suite_names = config.suites or recipe.evaluate.suites
    wanted = [
        version
        for version, name in zip(versions, recipe.evaluate.suites, strict=True)
        if name in suite_names
    ]
    arms = pa.table(
        {
            "model": [one.arm.model for one in asked],
            "answering_id": [one.arm.answering_id(run.pack) for one in asked],
            "samples": [one.arm.config.samples for one in asked],
        }
    )

    def pending(connection: duckdb.DuckDBPyConnection) -> stage.Pending:
        connection.register("arms_to_grade", arms)
        return evaluating.pending(
            connection,
            config,
            grading_id=grader.grading_id,
            spec_ids=grader.spec_ids,
            suite_versions=wanted,
            retries=recipe.stage.retries,
            wave_rows=recipe.stage.wave_rows,
        )

    name = f"grade {config.name}"
    if config.function:
        rows = evaluating.grade_by_function(
            pending(run.warehouse()),
            config,
            grading_id=grader.grading_id,
            home=run.home,
            run_id=run.id,
        )
        run.figures[name] = {"rows": rows}
        return
    work = evaluating.Grading(
        config=config,
        rubric=grader.rubric,
        grading_id=grader.grading_id,
        model=run.version(recipe.judging_engine),
        run_id=run.id,
    )
    run_stage(run, name, work, recipe.judging_engine, pending)
