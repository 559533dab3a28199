"""checkpoints → answers → evaluations → report: models side by side, without any spec.

An evaluation is arms × suites × graders. Its plan stands in the record of the run, so that every
table can be computed again later, and of whatever run.
"""

import base64
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from prefect import flow, task
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.cache_policies import NO_CACHE

from flows.recipe import SUITES, Recipe, RecipeError
from flows.run import RunContext, home_at, open_run
from flows.steps import (
    RETRIED,
    artifact_key,
    makes,
    monitor_reasoning,
    run_stage,
    say_how_to_look,
)
from flows.train import latest_training
from specs.policy import Pack
from tasks.engine.requests import EngineConfig
from tasks.evaluation import evaluation, suites
from tasks.evaluation.answer import RECORDED, AnswerConfig, AnswerWork, store_recorded
from tasks.evaluation.arms import ServedArm, arm_names
from tasks.evaluation.evaluation import EvaluateConfig, EvaluationSetup
from tasks.evaluation.grade import GradeWork, grade_without_engine
from tasks.evaluation.graders import Grader, RubricGrader
from tasks.evaluation.multiturn import MultiturnAttack, judge_beside
from tasks.evaluation.plan import PlannedSuite
from tasks.evaluation.probes import ProbeWork
from tasks.evaluation.rows import SuiteFigures
from tasks.evaluation.suites import Suite, SuiteConfig
from tasks.refine import RefineConfig, Refiner
from tasks.stage import StageFigures
from warehouse.lineage import choose_checkpoints, in_table_order
from warehouse.reports import report as reporting
from warehouse.tables import ANSWERS


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The outcome of an evaluation."""

    run_id: str
    home: str
    table: list[dict[str, Any]]
    """Rows of question `evaluation`, without the arms under a limit of reasoning of their own."""
    models_loaded: int
    num_answered: int
    """Answers that this run made."""
    suites: Mapping[str, SuiteFigures]
    """By suite, what became of the rows of its source."""
    is_untrained: bool = False
    """True if the recipe trains models, and none of them was there to evaluate."""


@flow(
    name="evaluate", flow_run_name="evaluate {recipe.name}", persist_result=False, log_prints=False
)
def evaluate(
    recipe: Recipe, home: str | None = None, checkpoints: list[str] | None = None
) -> Evaluated:
    """Evaluates the base model and the checkpoints of these ids; unset, those of the latest
    training. The start of an id is enough.

    Raises RecipeError if the recipe has no evaluation, and CheckpointError if the warehouse lacks a
    checkpoint.
    """
    config = check(recipe)
    with open_run("evaluate", recipe, home_at(home)) as run:
        base = base_arm(run, config, name="base")
        ids = checkpoints
        if ids is None:
            ids = latest_training(run.warehouse(), recipe, base=base.arm.model)
        arms = [base, *trained_arms(run, base, ids)]
        done = evaluate_arms(run, config, [*arms, *evaluation.probes_of(config, arms)])
    trains = bool(recipe.trainings)
    return replace(done, is_untrained=trains and checkpoints is None and not ids)


def check(recipe: Recipe) -> EvaluateConfig:
    """Returns the recipe's evaluation. Raises a ValueError if it has none, or if anything that it
    names cannot be used."""
    config = recipe.evaluate
    if config is None:
        raise RecipeError(f"recipe {recipe.name} evaluates nothing; give it a section [evaluate]")
    evaluation.check(
        config,
        shipped=SUITES,
        pack_folder=recipe.pack_folder,
        engine=recipe.student_engine,
        templates=recipe.judge.template,
    )
    return config


def check_suites(recipe: Recipe, config: EvaluateConfig) -> None:
    """Raises a ValueError if a suite cannot be rendered; reads all of its rows.

    A run that trains first calls it, so that it ends now, not after all training.
    """
    render_suites(recipe, recipe.load_pack(), suites.load_suites(config.suites, SUITES), limit=1)


def base_arm(
    run: RunContext, config: AnswerConfig, *, name: str, refine: RefineConfig | None = None
) -> ServedArm:
    """Returns the student, untrained, as an arm, which refines its answers if it is told how."""
    engine, templates = run.recipe.student_engine, run.recipe.generate.template
    refiner = None
    if refine:
        refiner = Refiner.of(refine, config.sampling, rules=run.pack.rules, templates=templates)
    return ServedArm.of_base(
        engine,
        config,
        name=name,
        model=run.version(engine),
        templates=templates,
        refiner=refiner,
    )


def trained_arms(run: RunContext, base: ServedArm, ids: Sequence[str]) -> list[ServedArm]:
    """Returns an arm for each checkpoint, named and ordered by its lineage, in whatever order the
    ids come."""
    connection = run.warehouse()
    checkpoints = in_table_order(connection, choose_checkpoints(connection, ids))
    names = arm_names(connection, checkpoints, base=base.arm.model)
    return [
        ServedArm.of_checkpoint(base, checkpoint, run.home, name=name, seed=None)
        for name, checkpoint in zip(names, checkpoints, strict=True)
    ]


def evaluate_arms(run: RunContext, config: EvaluateConfig, arms: Sequence[ServedArm]) -> Evaluated:
    """Evaluates arms, and probes of them, side by side."""
    report = measure(run, config, arms)
    unlimited = {served.arm.name for served in arms if served.arm.config.budget == config.budget}
    stages = run.figures.stages.values()
    return Evaluated(
        run_id=run.id,
        home=run.home.url,
        table=[row for row in report.tables["evaluation"] if row["arm"] in unlimited],
        models_loaded=run.engines.num_started,
        num_answered=sum(stage.num_rows for stage in stages if stage.table == ANSWERS.name),
        suites=run.figures.suites,
    )


def measure(
    run: RunContext, config: EvaluateConfig, arms: Sequence[ServedArm], *, by_jury: bool = False
) -> reporting.Report:
    """Makes what is missing of an evaluation, and reports it.

    `by_jury` has every judge of a jury grade by rubric `policy`, and not the first alone.
    """
    built = build_suites(run, config)
    judges = run.judges if by_jury else run.judges[:1]
    setup = set_up(run, config, arms, built, judges=judges)
    run.note(evaluation=setup.plan(threshold=run.recipe.judge.threshold))
    attack = setup.attack
    for served in _in_loading_order(run, arms):
        if served.arm.model == RECORDED:
            take_recorded(run, setup.answer_work(served.arm), built)
        else:
            answer(run, setup.work_of(served.arm), served.engine)
        if attack and not attack.needs_judge and served in setup.attacked:
            # Now, while the model of the arm is loaded.
            multiturn(run, attack, [served])
    monitor_reasoning(run, "answers")
    for grader in _in_grading_order(setup.graders):
        grade(run, setup.grade_work(grader))
    if attack and attack.needs_judge:
        multiturn(run, attack, setup.attacked)
    # The report shows what the run has cost, which its record must hold by then.
    run.note()
    return publish(run)


def set_up(
    run: RunContext,
    config: EvaluateConfig,
    arms: Sequence[ServedArm],
    built: Sequence[Suite],
    *,
    judges: Sequence[str],
) -> EvaluationSetup:
    """Returns the evaluation, ready to run; stores the specs of its cases.

    `judges` are the `model@revision` of those that grade by rubrics.
    """
    recipe, pack = run.recipe, run.pack
    specs = evaluation.specs_of(pack, built)
    run.store_specs([pack.spec([], detail="summary"), *specs.values()])
    return EvaluationSetup(
        config=config,
        pack=pack,
        suites=tuple(
            PlannedSuite(suite=suite.name, suite_version=suite.version) for suite in built
        ),
        spec_ids={key: spec.id for key, spec in specs.items()},
        arms=tuple(arms),
        graders=evaluation.graders_of(
            config,
            pack=pack,
            pack_folder=recipe.pack_folder,
            judges=judges,
            templates=recipe.judge.template,
        ),
        judge=judges[0],
        templates=recipe.judge.template,
        stage=recipe.stage,
        run_id=run.id,
    )


def _in_loading_order(run: RunContext, arms: Sequence[ServedArm]) -> list[ServedArm]:
    """Returns the arms so that each model is loaded once.

    The judge's own comes last, because it is needed again to grade. Probes come after the answers
    that they tamper with.
    """
    judge = run.recipe.judging_engine
    return sorted(
        arms,
        key=lambda served: (
            served.engine == judge,
            served.engine.model,
            served.arm.probe != "none",
        ),
    )


def _in_grading_order(graders: Sequence[Grader]) -> list[Grader]:
    """Returns the graders so that each judge is loaded once."""
    models = [grader.model if isinstance(grader, RubricGrader) else "" for grader in graders]
    ordered = sorted(zip(models, graders, strict=True), key=lambda pair: models.index(pair[0]))
    return [grader for _, grader in ordered]


@makes("build suites", "cases")
def build_suites(run: RunContext, config: EvaluateConfig) -> list[Suite]:
    """Renders every suite and stores the cases that are new."""
    configs = suites.load_suites(config.suites, SUITES)
    built = render_suites(run.recipe, run.pack, configs, limit=config.limit)
    for suite in built:
        suites.store(run.warehouse(), suite, run.home)
    run.update(suites={suite.name: suite.figures for suite in built})
    return built


def render_suites(
    recipe: Recipe, pack: Pack, configs: Sequence[SuiteConfig], *, limit: int | None
) -> list[Suite]:
    """Returns every suite with at most `limit` prompts, as the student is asked."""
    marks = evaluation.find_marks(recipe.student_engine, configs)
    categories = list(pack.policies)
    return [
        suites.build_suite(config, marks=marks, limit=limit, pack_categories=categories)
        for config in configs
    ]


@makes("answer", "answers", of=("cases", "checkpoints"))
def answer(run: RunContext, work: AnswerWork | ProbeWork, engine: EngineConfig) -> None:
    """Makes the answers of one arm, or of one probe, that are missing."""
    run_stage(run, work, engine)


@makes("recorded answers", "answers", of=("cases",))
def take_recorded(run: RunContext, work: AnswerWork, built: Sequence[Suite]) -> None:
    """Stores the answers that came with the suites."""
    for suite in built:
        store_recorded(run.warehouse(), run.home, suite.recorded, work=work)


@makes("grade", "evaluations", of=("answers", "specs"))
def grade(run: RunContext, work: GradeWork) -> None:
    """Makes the grades of one grader that are missing, over the answers of all arms."""
    if isinstance(work.grader, RubricGrader):
        run_stage(run, work, run.judging_engine(work.grader.model))
    else:
        num_rows = grade_without_engine(work, run.warehouse(), run.home)
        run.add_stage(
            work.name, StageFigures(table=work.table.name, num_units=num_rows, num_rows=num_rows)
        )


@makes("multiturn", "exchanges", of=("cases", "checkpoints"))
def multiturn(run: RunContext, attack: MultiturnAttack, attacked: Sequence[ServedArm]) -> None:
    """Makes the exchanges with these arms that are missing."""
    engines = [served.engine for served in attacked]
    if attack.needs_judge:
        run.engines.close()
    beside = judge_beside(run.recipe.judging_engine, engines, home=run.home)
    with beside if attack.needs_judge else nullcontext() as judge:
        for served in attacked:
            run_stage(run, attack.work(served.arm, judge), served.engine)


@task(name="publish", cache_policy=NO_CACHE, **RETRIED)
def publish(run: RunContext) -> reporting.Report:
    """Publishes the report and its plots to Prefect."""
    report = reporting.gather(run.warehouse(), run.id)
    create_table_artifact(
        key="evaluation", table=report.tables["evaluation"], description="Models side by side"
    )
    create_markdown_artifact(key="report", markdown=reporting.as_markdown(report))
    say_how_to_look(run)
    for title, picture in reporting.pictures(report):
        create_image_artifact(
            key=artifact_key(title),
            image_url=f"data:image/png;base64,{base64.b64encode(picture).decode()}",
            description=title,
        )
    return report
