"""policies + prompts → completions → judgements → examples: the nightly flow.

Each task asks the warehouse what is missing and makes only that, so the same run again does
nothing, and a run that was killed goes on where it stopped.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from html import escape
from typing import Any

import duckdb
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.progress import prefect_progress, progress_bar
from flows.recipe import DriftConfig, Recipe
from flows.run import Plan, Refreshed, RunContext, home_at, open_run
from tasks import collect as collecting
from tasks import curate as curating
from tasks import generate as generating
from tasks import judge as judging
from tasks import stage
from tasks.engine import EngineConfig
from warehouse.catalog import ask
from warehouse.shards import Damaged, mend


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


@task(name="check shards", cache_policy=NO_CACHE)
def check_shards(run: RunContext) -> list[Damaged]:
    """Sets damaged shards aside; their rows are made again by this run."""
    damaged = mend(run.home)
    run.figures["damaged"] = [asdict(one) for one in damaged]
    return damaged


@task(name="collect", cache_policy=NO_CACHE)
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


@task(name="assign categories", cache_policy=NO_CACHE)
def assign_categories(run: RunContext, collected: collecting.Collected) -> stage.Report | None:
    """Lets the judge model choose the category of prompts that came without one."""
    if collected.to_assign.num_rows == 0:
        return None
    engine = run.recipe.judging_engine
    work = collecting.Assign(pack=run.pack, run_id=run.id, sampling=run.recipe.judge.sampling)
    return run_stage(
        run, "assign", work, engine, lambda _: collecting.pending(collected, run.warehouse())
    )


@task(name="plan", cache_policy=NO_CACHE)
def plan_run(run: RunContext, collected: collecting.Collected) -> Plan:
    """Compiles the specs and records which rows this run wants."""
    return run.adopt(collecting.assigned(collected, run.warehouse()))


@task(name="generate", cache_policy=NO_CACHE)
def generate_completions(run: RunContext, plan: Plan) -> stage.Report:
    """Makes the completions that are missing."""
    recipe = run.recipe
    model = run.version(recipe.engine)
    work = generating.Generate(
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
            retries=recipe.stage.retries,
            wave_rows=recipe.stage.wave_rows,
        )

    return run_stage(run, "generate", work, recipe.engine, pending)


@task(name="judge", cache_policy=NO_CACHE)
def judge_completions(run: RunContext, plan: Plan) -> stage.Report:
    """Makes the judge samples that are missing."""
    recipe = run.recipe
    model = run.version(recipe.judging_engine)
    work = judging.Judge(config=recipe.judge, model=model, specs=plan.specs, run_id=run.id)

    def pending(connection: duckdb.DuckDBPyConnection) -> stage.Pending:
        return judging.pending(
            connection,
            config=recipe.judge,
            model=model,
            generation_id=plan.generation_id,
            num_samples=recipe.generate.samples,
            retries=recipe.stage.retries,
            wave_rows=recipe.stage.wave_rows,
        )

    return run_stage(run, "judge", work, recipe.judging_engine, pending)


@task(name="watch drift", cache_policy=NO_CACHE)
def watch_drift(run: RunContext) -> str | None:
    """Holds what this run judged where the judge is unlike itself in the runs before; says why."""
    config = run.recipe.drift
    if config is None:
        return None
    rows = [
        row
        for row in ask(run.warehouse(), "drift").to_pylist()
        if row["recipe"] == run.recipe.name and row["num_judged"] >= config.min_rows
    ]
    now = next((row for row in rows if row["run_id"] == run.id), None)
    before = [row for row in rows if row["run_id"] != run.id and row["alarm"] is None]
    alarm = find_drift(now, before[-config.refreshes :], config) if now else None
    run.note("drift", {"alarm": alarm} if alarm else {})
    return alarm


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


@task(name="curate", cache_policy=NO_CACHE)
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
    return curated


@task(name="report", cache_policy=NO_CACHE)
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


def run_stage(
    run: RunContext,
    name: str,
    work: stage.Work,
    engine: EngineConfig,
    find_pending: Callable[[duckdb.DuckDBPyConnection], stage.Pending],
) -> stage.Report:
    """Asks for what is missing and makes it; asks again for what is worth another try."""
    total = stage.Report()
    for attempt in range(run.recipe.stage.retries + 1):
        pending = find_pending(run.warehouse())
        if not pending.num_units:
            break
        stage.start_ray(os.environ.get("RAY_ADDRESS"))
        with (
            prefect_progress(name) as publish,
            progress_bar(name, pending.num_units, publish=publish) as advance,
        ):
            total += stage.run(
                work,
                pending,
                engines=run.engines,
                engine=engine,
                home=run.home,
                # Alone in its block, a row that kills engines takes no other with it.
                config=run.recipe.stage if attempt == 0 else run.recipe.stage.one_by_one,
                progress=advance,
            )
    run.figures[name] = {**total.as_dict(), "gpus": engine.num_gpus}
    return total
