"""policies + prompts → completions → judgements → examples: the nightly flow.

Each task asks the warehouse what is missing and makes only that. The same run again does nothing,
and a run that was killed goes on where it stopped.
"""

from collections.abc import Iterator
from html import escape
from typing import Any

import duckdb
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.recipe import Recipe
from flows.run import Plan, Refreshed, RunContext, home_at, open_run
from flows.shortfall import shortfall
from flows.steps import (
    RETRIED,
    describe_asset,
    is_last_try,
    makes,
    monitor_reasoning,
    run_stage,
    say_how_to_look,
)
from tasks.data.assign import assigned, count_assignments
from tasks.data.collected import Collected
from tasks.data.curate import Curated, curate
from tasks.data.drift import watch
from tasks.data.generate import GenerateWork
from tasks.data.judge import JudgeWork
from tasks.engine.faults import message_of
from tasks.engine.requests import EngineConfig, EngineError
from tasks.meters import Meter
from tasks.stage import StageError, StageFigures, StageInterrupted
from warehouse.catalog import ask, look_up
from warehouse.upkeep import Damaged, mend


@flow(name="refresh", flow_run_name="refresh {recipe.name}", persist_result=False, log_prints=False)
def refresh(recipe: Recipe, home: str | None = None) -> Refreshed:
    """Brings the warehouse up to date with the recipe's policies and prompts."""
    with open_run("refresh", recipe, home_at(home)) as run:
        check_shards(run)
        collected = collect_prompts(run)
        assign_categories(run, collected)
        plan = plan_run(run, collected)
        generate_completions(run, plan)
        monitor_reasoning(run, "completions")
        judge_completions(run, plan)
        watch_drift(run)
        curated = curate_examples(run)
        return report(run, curated)


@task(name="check shards", cache_policy=NO_CACHE, **RETRIED)
def check_shards(run: RunContext) -> list[Damaged]:
    """Sets damaged shards aside; this run makes their rows again."""
    damaged = mend(run.home)
    run.update(damaged=tuple(damaged))
    return damaged


@makes("collect", "prompts")
def collect_prompts(run: RunContext) -> Collected:
    """Reads the sources and stores the prompts and traces that are new."""
    collected = run.collect()
    of_traces = {source.name for source in run.recipe.traces}
    counts = collected.counts.items()
    run.update(
        collect={name: one for name, one in counts if name not in of_traces},
        traces={name: one for name, one in counts if name in of_traces},
        conflicts=collected.conflicts or None,
        notes=collected.notes,
    )
    run.relations["unassigned"] = collected.unassigned
    return collected


@makes("assign categories", "prompts")
def assign_categories(run: RunContext, collected: Collected) -> StageFigures | None:
    """Lets the judge model choose the category of prompts that came without one."""
    if collected.unassigned.num_rows == 0:
        return None
    return run_stage(run, run.assign_work, run.recipe.judging_engine)


@makes("plan", "specs")
def plan_run(run: RunContext, collected: Collected) -> Plan:
    """Compiles the specs and records which rows this run wants."""
    connection = run.warehouse()
    prompts = assigned(collected, connection)
    run.update(assigned=count_assignments(connection).num_prompts)
    return run.adopt(prompts, collected.traces)


@makes("generate", "completions", of=("prompts", "specs"))
def generate_completions(run: RunContext, plan: Plan) -> StageFigures:
    """Makes the completions that are missing."""
    recipe = run.recipe
    if not recipe.sources:
        return StageFigures()
    work = GenerateWork(
        config=recipe.generate,
        stage=recipe.stage,
        model=run.version(recipe.engine),
        specs=plan.specs,
        rules=run.pack.rules,
        run_id=run.id,
    )
    return run_stage(run, work, recipe.engine)


@makes("judge", "judgements", of=("completions", "specs"))
def judge_completions(run: RunContext, plan: Plan) -> StageFigures:
    """Makes the judgements that are missing, those of each judge in a stage of their own.

    A judge of a jury that cannot be asked leaves its completions unjudged, for the next run to ask
    again; the others are asked all the same.
    """
    if run.record.judging_id is None:
        return StageFigures()
    total = StageFigures()
    faults: dict[str, str] = {}
    for work, engine in _judge_works(run, plan):
        try:
            total += run_stage(run, work, engine)
        except (EngineError, StageError) as fault:
            # Prefect retries a fault that may pass; without any judge nothing can go on.
            may_pass = isinstance(fault, StageInterrupted) and not is_last_try()
            if may_pass or len(faults) + 1 == len(run.judges):
                raise
            faults[work.model] = message_of(fault)
            run.engines.close()
    if faults:
        run.note(silent_judges=faults)
    if total.num_units:
        [judged] = look_up(run.warehouse(), "accepted_of_run", run_id=run.id)
        Meter.of_cluster().add("precept_accepted", judged["num_accepted"])
    return total


def _judge_works(run: RunContext, plan: Plan) -> Iterator[tuple[JudgeWork, EngineConfig]]:
    """Yields the work of each judge with its engine, in the order of asking."""
    recipe = run.recipe
    for model, engine in zip(run.judges, recipe.judging_engines.values(), strict=True):
        work = JudgeWork(
            config=recipe.judge,
            stage=recipe.stage,
            model=model,
            jury=run.judges if len(run.judges) > 1 else (),
            generation_id=run.record.generation_id or "",
            num_completions=recipe.generate.samples,
            specs=plan.specs,
            run_id=run.id,
        )
        yield work, engine


@task(name="watch drift", cache_policy=NO_CACHE, **RETRIED)
def watch_drift(run: RunContext) -> str | None:
    """Holds what this run judged if the judge has drifted; returns why."""
    if run.recipe.drift is None:
        return None
    rows = ask(run.warehouse(), "drift").to_pylist()
    drift = watch([row for row in rows if row["recipe"] == run.recipe.name], run.recipe.drift)
    run.note(drift=drift)
    return drift.alarm


@makes("curate", "examples", of=("completions", "judgements"))
def curate_examples(run: RunContext) -> Curated:
    """Freezes the accepted completions as a set of examples."""
    curated = curate(
        run.warehouse(),
        config=run.recipe.curate,
        home=run.home,
        judging_id=run.record.judging_id or "",
        run_id=run.id,
    )
    run.note(curate=curated)
    describe_asset(run, "examples", {"rows": curated.num_chosen, "set_id": curated.set_id})
    return curated


@task(name="report", cache_policy=NO_CACHE, **RETRIED)
def report(run: RunContext, curated: Curated) -> Refreshed:
    """Publishes the funnel and a sample of accepted completions to Prefect."""
    connection, recipe = run.warehouse(), run.recipe
    funnel: list[dict[str, Any]] = ask(connection, "funnel").to_pylist()
    unread = count_assignments(connection).reasons
    create_table_artifact(key="funnel", table=funnel, description="From prompts to examples")
    create_markdown_artifact(key="accepted", markdown=sample_of_accepted(connection, 3))
    say_how_to_look(run)
    return Refreshed(
        run_id=run.id,
        home=run.home.url,
        funnel=funnel,
        set_id=curated.set_id,
        num_examples=curated.num_chosen,
        figures=run.figures,
        models_loaded=run.engines.num_started,
        shortfall=None
        if curated.num_chosen
        else shortfall(funnel, unread, of_traces=not recipe.sources, of_scores=not recipe.judges),
    )


def sample_of_accepted(connection: duckdb.DuckDBPyConnection, count: int) -> str:
    """Returns accepted completions as Markdown, with citations and scores; prompts are folded."""
    rows = ask(connection, "accepted_chains").slice(0, count).to_pylist()
    return "\n\n".join(
        f"### {row['category']}: scores {row['scores']}, cites {', '.join(row['cited'])}\n\n"
        f"<details><summary>prompt</summary>\n<pre>{escape(row['request'])}</pre>\n</details>\n\n"
        f"reasoning\n<pre>{escape(row['reasoning'])}</pre>\n\n"
        f"answer\n<pre>{escape(row['answer'])}</pre>"
        for row in rows
    )
