"""The commands that make something: data, models, evaluations, projects."""

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import terminal
from flows.command import (
    AsJson,
    HomeOption,
    Overrides,
    RecipeName,
    app,
    carry_out,
    home_of,
    load,
    print_outcome,
    quiet_libraries,
    reading_from,
    recipe_command,
    user_errors,
)


@recipe_command("refreshed")
def refresh(recipe: Any, home: str | None) -> Any:
    """Makes what is missing: completions, judgements, examples. Run it again to go on."""
    from flows.refresh import refresh as flow

    return flow(recipe, home)


@recipe_command("trained")
def train(recipe: Any, home: str | None) -> Any:
    """Trains on the policies and examples: midtraining, SFT, DPO, RL, as the recipe says."""
    from flows.train import train as flow

    return flow(recipe, home)


@app.command()
def evaluate(
    recipe: RecipeName,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            help="Id of a checkpoint to evaluate, or its start; give it again for another. "
            "Unset: those of the latest training."
        ),
    ] = None,
    set_: Overrides = None,
    home: HomeOption = None,
    as_json: AsJson = False,
) -> None:
    """Evaluates the base model and the newest checkpoints, side by side."""

    def work(loaded: Any, home: str | None) -> Any:
        from flows.evaluate import evaluate as flow

        return flow(loaded, home, checkpoint or None)

    with user_errors():
        loaded = load(recipe, set_)
        if checkpoint:
            from warehouse.catalog import connect
            from warehouse.lineage import choose_checkpoints

            # Before Prefect starts; the flow looks up again.
            with reading_from(home) as place:
                choose_checkpoints(connect(place), checkpoint)
        outcome = carry_out("evaluate", work, loaded, home, is_flow=True)
        print_outcome(outcome, "evaluated", (recipe, home), as_json=as_json)


@recipe_command("evaluated")
def ablate(recipe: Any, home: str | None) -> Any:
    """Trains and evaluates the arms of an ablation, side by side. Run it again to go on."""
    from flows.ablate import ablate as flow

    return flow(recipe, home)


@app.command()
def calibrate(
    recipe: RecipeName,
    precision: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Precision to reach: the cheapest judges, number of grades and threshold that "
            "reach it are recommended.",
        ),
    ] = 0.95,
    reviews: Annotated[
        bool,
        typer.Option(
            "--reviews",
            help="Take what people said of completions for gold; asks no model. See review.",
        ),
    ] = False,
    set_: Overrides = None,
    home: HomeOption = None,
    as_json: AsJson = False,
) -> None:
    """Holds judges and juries against gold: precision and recall of the filter by threshold and
    k."""

    def work(loaded: Any, home: str | None) -> Any:
        from flows.calibrate import calibrate as flow

        return flow(loaded, home, precision)

    if reviews:
        with reading_from(home) as place:
            from flows.calibrate import calibrate_by_reviews

            outcome = calibrate_by_reviews(load(recipe, set_), place, precision)
            print_outcome(outcome, "calibrated", (recipe, home), as_json=as_json)
        return
    with user_errors():
        outcome = carry_out("calibrate", work, load(recipe, set_), home, is_flow=True)
        print_outcome(outcome, "calibrated", (recipe, home), as_json=as_json)


@recipe_command("aligned")
def run(recipe: Any, home: str | None) -> Any:
    """Does it all: refresh, train, evaluate. Run it again to go on."""
    from flows.align import align

    return align(recipe, home)


@recipe_command("estimated", is_flow=False)
def estimate(recipe: Any, home: str | None) -> Any:
    """Says what a refresh would make, and what it would cost; makes and writes nothing."""
    from flows.estimate import estimate as work

    return work(recipe, home)


@app.command()
def init(
    folder: Annotated[str, typer.Argument(help="A folder that is new or empty.")],
) -> None:
    """Writes a project of your own: a recipe, two policies, ten prompts. It runs as it is."""
    with user_errors():
        from flows.project import write_project

        for path in write_project(folder):
            terminal.line(str(path))
        terminal.line(f"next: precept refresh {shlex.quote(str(Path(folder) / 'recipe.toml'))}")


@app.command()
def serve(recipe: RecipeName, set_: Overrides = None, home: HomeOption = None) -> None:
    """Offers every flow in the Prefect UI and refreshes by the recipe's schedule; stays."""
    with user_errors():
        from flows.preflight import require_prefect
        from flows.recipe import load_recipe

        loaded = load_recipe(recipe, overrides=set_ or [])
        loaded.load_pack()
        if not os.environ.get("PREFECT_API_URL"):
            raise ValueError(
                "PREFECT_API_URL is not set, and a schedule needs a Prefect server that stays: "
                "start one with prefect server start, and set it to http://127.0.0.1:4200/api"
            )
        require_prefect()
        name = str(Path(recipe).absolute()) if Path(recipe).is_file() else recipe
        from warehouse.home import make_home

        make_home(home_of(home))
        # Each run is a process of its own, which finds warehouse and recipe by the environment.
        os.environ["PRECEPT_HOME"] = home_of(home).url
        os.environ["PRECEPT_RECIPE"] = name
        from flows.deployments import serve_all

        serve_all(loaded, name, overrides=set_ or [])


@app.command()
def approve(
    run_id: Annotated[str, typer.Argument(help="Id of a held run, or its start.")],
    note: Annotated[str, typer.Option("--note", help="The reason, for the record.")] = "",
    home: HomeOption = None,
) -> None:
    """Lets the judgements of a held refresh into the examples of the next one."""
    with reading_from(home) as place:
        quiet_libraries()
        from flows.nightly import approve as flow
        from flows.nightly import recipe_of

        approved = flow(run_id, home, note=note)
        recipe = recipe_of(place, approved)
        terminal.lines(
            f"approved run {approved}: the next refresh of recipe {recipe} takes in what it judged",
            f"next: precept refresh {shlex.quote(recipe)}{terminal.home_option(home)}",
        )


@app.command()
def compact(home: HomeOption = None) -> None:
    """Merges small shards into larger ones."""
    with reading_from(home) as place:
        from flows.lock import lock
        from warehouse.catalog import connect
        from warehouse.tables import TABLES
        from warehouse.upkeep import compact as merge

        with lock(place):
            # Opened for its word on another schema version and on what is not read.
            connect(place).close()
            for table in TABLES.values():
                before, after = merge(place, table)
                terminal.line(f"{table.name:14} {before} shards, now {after}")


@app.command()
def doctor(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe whose models to check as well.")
    ] = None,
    set_: Overrides = None,
    home: HomeOption = None,
    mend: Annotated[
        bool, typer.Option("--mend", help="Set aside the files that are no whole shards.")
    ] = False,
    random_weights: Annotated[
        bool,
        typer.Option(
            "--random-weights",
            help="Run the recipe's whole chain in a temporary warehouse instead, without GPUs and "
            "downloads: each model in 2 layers of random weights, with few and short prompts.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Checks versions, memory, warehouse, Ray, Prefect and the models of a recipe, with the remedy
    for what is wrong."""
    with user_errors():
        loaded = load(recipe, set_) if recipe else None
        if random_weights:
            if mend or home is not None:
                raise ValueError(
                    "--random-weights runs in a temporary warehouse and looks at no other: leave "
                    f"{'--mend' if mend else '--home'} out"
                )
            is_fine = _run_dry(loaded, as_json=as_json)
        else:
            is_fine = _examine(loaded, home, mend=mend, as_json=as_json)
        if not is_fine:
            raise typer.Exit(1)


def _examine(recipe: Any, home: str | None, *, mend: bool, as_json: bool) -> bool:
    """Prints the checks of doctor; returns whether none found a fault."""
    quiet_libraries()
    from flows import show
    from flows.doctor import run_checks

    checks = run_checks(home_of(home), recipe, mend=mend)
    show.checks(checks, as_json=as_json)
    return all(check.ok for check in checks)


def _run_dry(recipe: Any, *, as_json: bool) -> bool:
    """Prints the dry run of a recipe; returns whether every part of its chain made something."""
    if recipe is None:
        raise ValueError(
            "--random-weights runs the chain of a recipe, and none is named; give its file or the "
            "name of a shipped one"
        )
    # A cluster or a server that others use is told nothing of a dry run.
    for name in ("RAY_ADDRESS", "PREFECT_API_URL"):
        os.environ.pop(name, None)
    from flows import dry_run, show

    with dry_run.prepare(recipe) as prepared:
        aligned = carry_out("run", run, prepared.small, prepared.home, is_flow=True)
        outcome = prepared.outcome(aligned)
    show.dry_run(outcome, as_json=as_json)
    return all(part.ok for part in outcome.parts)
