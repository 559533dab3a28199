"""checkpoints → answers → evaluations → report: models side by side, without any spec.

An evaluation is arms × suites × graders. What it is made of stands in the record of its run, so
that every table can be asked for again later, and of whatever run.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
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

from flows.arms import (
    Asked,
    Grader,
    check,
    find_marks,
    graders_of,
    of_base,
    of_checkpoint,
    plan,
    probes_of,
    specs_of,
)
from flows.converse import attacked, attacking_id, converse, needs_model
from flows.recipe import SUITES, Recipe, RecipeError
from flows.run import RunContext, home_at, open_run
from flows.steps import RETRIED, artifact_key, makes, run_stage
from flows.train import latest_training
from specs.attacks import Marks
from tasks import stage
from tasks.evaluation import answer as answering
from tasks.evaluation import grade as evaluating
from tasks.evaluation import suites
from tasks.evaluation.probes import pending_probes
from warehouse.catalog import Pending, find_checkpoints
from warehouse.reports import report as reporting


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What an evaluation came to."""

    run_id: str
    home: str
    table: list[dict[str, Any]]
    """What `precept ask evaluation` answers, without the arms that limit the reasoning further."""
    models_loaded: int
    num_answered: int
    """Answers made in this run; the others were there."""


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
        names = latest_training(warehouse, recipe) if checkpoints is None else checkpoints
        asked = [of_base(run, config, name="base")]
        made = find_checkpoints(warehouse, names)
        if missing := set(names) - {one.checkpoint_id for one in made}:
            raise RecipeError(
                f"no checkpoint {', '.join(sorted(missing))} in {run.home.url}; precept sql "
                '"select checkpoint_id, stage, recipe from checkpoints" lists them'
            )
        stages = [one.stage.upper() for one in made]
        for number, checkpoint in enumerate(made):
            name = "+".join(stages[: number + 1])
            asked.append(of_checkpoint(run, checkpoint, name=name, config=config))
        return evaluate_arms(run, asked, probed=[one.arm.name for one in asked])


def evaluate_arms(
    run: RunContext, asked: Sequence[Asked], *, probed: Sequence[str] = ()
) -> Evaluated:
    """Evaluates arms side by side, and says what it came to; `probed` as in `measure`."""
    report = measure(run, asked, probed=probed)
    config = check(run.recipe)
    unlimited = {one.arm.name for one in asked if one.arm.config.budget == config.budget}
    stages = [name for name in run.figures if name.startswith("answer ")]
    return Evaluated(
        run_id=run.id,
        home=run.home.url,
        table=[row for row in report.tables["evaluation"] if row["arm"] in unlimited],
        models_loaded=run.engines.num_started,
        num_answered=sum(run.figures[name]["rows"] for name in stages),
    )


def measure(
    run: RunContext, asked: Sequence[Asked], *, probed: Sequence[str] = ()
) -> reporting.Report:
    """Makes what is missing of an evaluation, and reports it.

    `probed` are the names of arms whose reasoning is tampered with, where the recipe says how;
    what policies stand in their prompts is edited too.
    """
    recipe = run.recipe
    config = check(recipe)
    marks = find_marks(recipe.engine, config)
    built = build_suites(run, marks)
    probes = [one for arm in asked if arm.arm.name in probed for one in probes_of(recipe, arm)]
    versions = [suite.version for suite in built]
    everyone = [*asked, *probes]
    specs = specs_of(run, built)
    graders = graders_of(run, specs)
    talked_to = attacked(recipe, asked)
    conversations = [
        {
            "arm": one.arm.name,
            "model": one.arm.model,
            "attacking_id": attacking_id(run, one, graders),
        }
        for one in talked_to
    ]
    alone = not needs_model(recipe)
    run.note("evaluation", plan(run, everyone, built, specs, graders, conversations))
    # Each model is loaded once, and the judge's own comes last: it is wanted again to grade.
    for one in sorted(
        everyone,
        key=lambda one: (
            one.engine == recipe.judging_engine,
            one.engine.model,
            one.arm.probe != "none",
        ),
    ):
        if one.arm.model == answering.RECORDED:
            store_recorded(run, one, built)
        else:
            answer(run, one, versions)
        if one in talked_to and alone:
            # While its model is loaded.
            converse(run, [one], built, graders)
    for grader in graders:
        grade(run, grader, everyone, built)
    if talked_to and not alone:
        converse(run, talked_to, built, graders)
    # The report tells what the run has cost so far.
    run.note("evaluation", run.figures["evaluation"])
    return publish(run)


@task(name="publish", cache_policy=NO_CACHE, **RETRIED)
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


@makes("build suites", "cases")
def build_suites(run: RunContext, marks: Marks | None) -> list[suites.Suite]:
    """Renders every suite and stores the cases that are new."""
    config = run.recipe.evaluate
    assert config is not None
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


@makes("answer", "answers", of=("cases", "checkpoints"))
def answer(run: RunContext, asked: Asked, versions: Sequence[str]) -> stage.StageFigures:
    """Makes the answers of one arm that are missing."""
    recipe, arm = run.recipe, asked.arm
    assert recipe.evaluate is not None
    faithfulness = recipe.evaluate.faithfulness

    def pending(connection: duckdb.DuckDBPyConnection) -> Pending:
        if arm.probe != "none" and faithfulness:
            return pending_probes(
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

    work = answering.AnswerWork(arm=arm, pack=run.pack, run_id=run.id)
    return run_stage(run, f"answer {arm.label}", work, asked.engine, pending)


@makes("recorded answers", "answers", of=("cases",))
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


@makes("grade", "evaluations", of=("answers", "specs"))
def grade(
    run: RunContext, grader: Grader, asked: Sequence[Asked], built: Sequence[suites.Suite]
) -> None:
    """Makes the votes of one grader that are missing, over the answers of all arms."""
    recipe, config = run.recipe, grader.config
    wanted = [one.version for one in built if not config.suites or one.name in config.suites]
    arms = pa.table(
        {
            "model": [one.arm.model for one in asked],
            "answering_id": [one.arm.answering_id(run.pack) for one in asked],
            "samples": [one.arm.config.samples for one in asked],
        }
    )

    def pending(connection: duckdb.DuckDBPyConnection) -> Pending:
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
    assert grader.rubric is not None
    work = evaluating.GradeWork(
        config=config,
        rubric=grader.rubric,
        grading_id=grader.grading_id,
        model=run.version(recipe.judging_engine),
        run_id=run.id,
    )
    run_stage(run, name, work, recipe.judging_engine, pending)
