"""policies + prompts → completions → judgements → examples: the nightly flow.

Each task asks the warehouse what is missing and makes only that, so the same run again does
nothing, and a run that was killed goes on where it stopped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from typing import Any

import duckdb
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.recipe import DriftConfig, Recipe
from flows.run import Plan, Refreshed, RunContext, home_at, open_run
from flows.steps import RETRIED, describe_asset, makes, run_stage
from tasks import stage
from tasks.data import collect as collecting
from tasks.data import curate as curating
from tasks.data import generate as generating
from tasks.data import judge as judging
from tasks.meters import Meter
from warehouse.catalog import ask
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
        judge_completions(run, plan)
        watch_drift(run)
        curated = curate_examples(run, plan)
        return report(run, curated)


@task(name="check shards", cache_policy=NO_CACHE, **RETRIED)
def check_shards(run: RunContext) -> list[Damaged]:
    """Sets damaged shards aside; their rows are made again by this run."""
    damaged = mend(run.home)
    run.figures["damaged"] = [asdict(one) for one in damaged]
    return damaged


@makes("collect", "prompts")
def collect_prompts(run: RunContext) -> collecting.Collected:
    """Reads the sources and stores the prompts that are new."""
    collected = collecting.collect(
        run.recipe.sources,
        config=run.recipe.collect,
        pack_categories=list(run.pack.policies),
        home=run.home,
        connection=run.warehouse(),
    )
    run.figures["collect"] = {name: asdict(count) for name, count in collected.counts.items()}
    return collected


@makes("assign categories", "prompts")
def assign_categories(
    run: RunContext, collected: collecting.Collected
) -> stage.StageFigures | None:
    """Lets the judge model choose the category of prompts that came without one."""
    if collected.to_assign.num_rows == 0:
        return None
    engine = run.recipe.judging_engine
    work = collecting.AssignWork(pack=run.pack, run_id=run.id, sampling=run.recipe.judge.sampling)
    return run_stage(
        run, "assign", work, engine, lambda _: collecting.pending(collected, run.warehouse())
    )


@makes("plan", "specs")
def plan_run(run: RunContext, collected: collecting.Collected) -> Plan:
    """Compiles the specs and records which rows this run wants."""
    return run.adopt(collecting.assigned(collected, run.warehouse()))


@makes("generate", "completions", of=("prompts", "specs"))
def generate_completions(run: RunContext, plan: Plan) -> stage.StageFigures:
    """Makes the completions that are missing."""
    recipe = run.recipe
    model = run.version(recipe.engine)
    work = generating.GenerateWork(
        config=recipe.generate,
        model=model,
        specs=plan.specs,
        all_rule_ids=run.pack.rule_ids,
        run_id=run.id,
    )

    def pending(connection: duckdb.DuckDBPyConnection) -> stage.Pending:
        return generating.pending(
            connection,
            config=recipe.generate,
            model=model,
            run_id=run.id,
            stage=recipe.stage,
        )

    return run_stage(run, "generate", work, recipe.engine, pending)


@makes("judge", "judgements", of=("completions", "specs"))
def judge_completions(run: RunContext, plan: Plan) -> stage.StageFigures:
    """Makes the judge samples that are missing."""
    recipe = run.recipe
    model = run.version(recipe.judging_engine)
    work = judging.JudgeWork(config=recipe.judge, model=model, specs=plan.specs, run_id=run.id)

    def pending(connection: duckdb.DuckDBPyConnection) -> stage.Pending:
        return judging.pending(
            connection,
            config=recipe.judge,
            model=model,
            generation_id=plan.generation_id,
            num_samples=recipe.generate.samples,
            run_id=run.id,
            stage=recipe.stage,
        )

    made = run_stage(run, "judge", work, recipe.judging_engine, pending)
    if made.num_units:
        anew = (row for row in ask(run.warehouse(), "drift").to_pylist() if row["run_id"] == run.id)
        Meter.of_cluster().add("precept_accepted", sum(row["num_accepted"] for row in anew))
    return made


@task(name="watch drift", cache_policy=NO_CACHE, **RETRIED)
def watch_drift(run: RunContext) -> str | None:
    """Holds what this run judged where the judge is unlike itself in the runs before; says why."""
    config = run.recipe.drift
    if config is None:
        return None
    rows = [
        row for row in ask(run.warehouse(), "drift").to_pylist() if row["recipe"] == run.recipe.name
    ]
    # What a refresh judged that was killed is looked at by the next one.
    new = [row for row in rows if not row["watched"]]
    before = [row for row in rows if row["watched"] and row["alarm"] is None]
    before = [row for row in before if row["num_judged"] >= config.min_rows]
    now = _together(new)
    alarm = None
    if now["num_judged"] >= config.min_rows:
        alarm = find_drift(now, before[-config.refreshes :], config)
    runs = [row["run_id"] for row in new]
    run.note("drift", {"runs": runs} | ({"alarm": alarm} if alarm else {}))
    return alarm


def _together(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several refreshes as one."""

    def mean(name: str) -> float | None:
        known = [row for row in rows if row[name] is not None]
        weight = sum(row["num_judged"] for row in known)
        return sum(row[name] * row["num_judged"] for row in known) / weight if weight else None

    return {
        "num_judged": sum(row["num_judged"] for row in rows),
        "acceptance": mean("acceptance"),
        "spread": mean("spread"),
    }


def find_drift(
    now: Mapping[str, Any], before: Sequence[Mapping[str, Any]], config: DriftConfig
) -> str | None:
    """In what a refresh is unlike those before it, in one sentence; None where it is like them."""
    for name, band in (("acceptance", config.acceptance), ("spread", config.spread)):
        known = [row[name] for row in before if row[name] is not None]
        if not known or now[name] is None:
            continue
        usual = sum(known) / len(known)
        if abs(now[name] - usual) > band:
            return (
                f"{name} is {now[name]:.3f} over {now['num_judged']} completions, {usual:.3f} in "
                f"the {len(known)} refreshes before; more than {band:g} apart"
            )
    return None


@makes("curate", "examples", of=("completions", "judgements"))
def curate_examples(run: RunContext, plan: Plan) -> curating.Curated:
    """Freezes the accepted completions as a set of examples."""
    curated = curating.curate(
        run.warehouse(),
        config=run.recipe.curate,
        home=run.home,
        generation_id=plan.generation_id,
        judging_id=plan.judging_id,
        run_id=run.id,
    )
    run.figures["curate"] = asdict(curated)
    describe_asset(run, "examples", {"rows": curated.num_chosen, "set_id": curated.set_id})
    return curated


@task(name="report", cache_policy=NO_CACHE, **RETRIED)
def report(run: RunContext, curated: curating.Curated) -> Refreshed:
    """Publishes the funnel and a sample of accepted chains of thought to Prefect."""
    connection = run.warehouse()
    funnel: list[dict[str, Any]] = ask(connection, "funnel").to_pylist()
    create_table_artifact(key="funnel", table=funnel, description="From prompts to examples")
    create_markdown_artifact(key="accepted", markdown=sample_of_accepted(connection, 3))
    return Refreshed(
        run_id=run.id,
        home=run.home.url,
        funnel=funnel,
        set_id=curated.set_id,
        num_examples=curated.num_chosen,
        figures=run.figures,
        models_loaded=run.engines.num_started,
    )


def sample_of_accepted(connection: duckdb.DuckDBPyConnection, count: int) -> str:
    """Accepted chains of thought as Markdown, with citations and scores; prompts folded."""
    rows = ask(connection, "accepted_chains").slice(0, count).to_pylist()
    return "\n\n".join(
        f"### {row['category']}: scores {row['scores']}, cites {', '.join(row['cited'])}\n\n"
        f"<details><summary>prompt</summary>\n<pre>{escape(row['request'])}</pre>\n</details>\n\n"
        f"reasoning\n<pre>{escape(row['reasoning'])}</pre>\n\n"
        f"answer\n<pre>{escape(row['answer'])}</pre>"
        for row in rows
    )
