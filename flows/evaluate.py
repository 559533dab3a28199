"""checkpoints → evaluations: what each model answers without any spec, graded, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.recipe import Recipe, RecipeError
from flows.refresh import run_stage
from flows.run import RunContext, home_at, open_run
from tasks import evaluate as evaluating
from tasks import stage
from tasks.engine import EngineConfig
from tasks.sources import read_source
from warehouse.catalog import ask, find_checkpoints, latest_training
from warehouse.tables import Checkpoint


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What an evaluation came to."""

    run_id: str
    home: str
    table: list[dict[str, Any]]
    models_loaded: int


@flow(
    name="evaluate", flow_run_name="evaluate {recipe.name}", persist_result=False, log_prints=False
)
def evaluate(
    recipe: Recipe, home: str | None = None, checkpoints: list[str] | None = None
) -> Evaluated:
    """Evaluates the base model and checkpoints: those named, else those of the latest training."""
    if recipe.evaluate is None or not recipe.suites:
        raise RecipeError(
            f"recipe {recipe.name} evaluates nothing; give it [[suites]] and a section [evaluate]"
        )
    evaluating.load_grader(recipe.evaluate.grader)
    with open_run("evaluate", recipe, home_at(home)) as run:
        suites = [
            evaluating.Suite.of(source.name, [one for one in read_source(source) if not one.fault])
            for source in recipe.suites
        ]
        warehouse = run.warehouse()
        names = latest_training(warehouse, recipe.name) if checkpoints is None else checkpoints
        found = find_checkpoints(warehouse, names)
        evaluate_model(run, suites, recipe.engine, None)
        for checkpoint in found:
            engine = recipe.engine.of_folder(f"{run.home.root}/{checkpoint.path}")
            evaluate_model(run, suites, engine, checkpoint)
        models = {run.version(recipe.engine), *(one.model for one in found)}
        versions = {suite.version for suite in suites}
        table: list[dict[str, Any]] = [
            row
            for row in ask(run.warehouse(), "evaluation").to_pylist()
            if row["model"] in models
            and row["suite_version"] in versions
            and row["evaluating_id"] == recipe.evaluate.evaluating_id
        ]
        create_table_artifact(key="evaluation", table=table, description="Models side by side")
        return Evaluated(run.id, run.home.url, table, run.engines.num_started)


@task(name="evaluate model", cache_policy=NO_CACHE)
def evaluate_model(
    run: RunContext,
    suites: Sequence[evaluating.Suite],
    engine: EngineConfig,
    checkpoint: Checkpoint | None,
) -> None:
    """Makes the graded answers of one model that are missing."""
    recipe = run.recipe
    config = recipe.evaluate
    assert config is not None
    name = checkpoint.stage if checkpoint else "base"
    model = checkpoint.model if checkpoint else run.version(engine)
    for suite in suites:
        work = evaluating.Evaluate(
            config=config,
            suite=suite.name,
            suite_version=suite.version,
            model=model,
            checkpoint_id=checkpoint.checkpoint_id if checkpoint else None,
            all_rule_ids=run.pack.rule_ids,
            run_id=run.id,
        )

        def pending(
            connection: duckdb.DuckDBPyConnection, suite: evaluating.Suite = suite
        ) -> stage.Pending:
            return evaluating.pending(
                connection,
                suite,
                config=config,
                model=model,
                retries=recipe.stage.retries,
                wave_rows=recipe.stage.wave_rows,
            )

        run_stage(run, f"evaluate-{name}-{suite.name}", work, engine, pending)
