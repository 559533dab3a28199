"""The deployments in the Prefect UI: every flow with a form of its own, and the nightly schedule.

A form names a recipe and overrides. Rows and policy text never pass through Prefect, which
refuses more than 512 KiB of parameters. `precept serve` serves all of them from this machine;
`infra/prefect.yaml` deploys them to work pools.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from prefect import Flow, flow, serve
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import Abort
from prefect.runtime import flow_run
from prefect.schedules import Cron
from prefect.states import Cancelled
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.timeout import timeout

import flows.ablate
import flows.align
import flows.evaluate
import flows.nightly
import flows.train
from flows.estimate import estimate
from flows.lock import BusyError, lock
from flows.recipe import Recipe, load_recipe, shipped_recipes
from flows.run import home_at
from flows.time_limit import told_as_timeout


def known_recipes() -> list[str]:
    """Returns the files in `$PRECEPT_RECIPES`, the recipes that ship, and `$PRECEPT_RECIPE`."""
    folder = os.environ.get("PRECEPT_RECIPES")
    own = sorted(str(path) for path in Path(folder).absolute().glob("*.toml")) if folder else []
    chosen = os.environ.get("PRECEPT_RECIPE")
    return list(dict.fromkeys([*own, *shipped_recipes(), *([chosen] if chosen else [])]))


if TYPE_CHECKING:
    RecipeName = str
else:
    # The form offers the recipes that exist when it is served. The process of a run, which has the
    # same environment, checks the choice against the same list.
    RecipeName = Literal[tuple(known_recipes())]


def _run_name() -> str:
    """Returns the flow's name and the recipe's, whether that was given by name or by path."""
    recipe = Path(flow_run.get_parameters()["recipe"])
    return f"{flow_run.get_flow_name()} {recipe.stem}"


def _load(recipe: str, overrides: Sequence[str]) -> Recipe:
    """Returns the recipe of a form, with its pack checked."""
    loaded = load_recipe(recipe, overrides=overrides)
    loaded.load_pack()
    return loaded


def _publish_estimate(recipe: Recipe) -> None:
    """Shows what a refresh would make as an artifact of the run."""
    text = f"# {recipe.name} would make\n\n{estimate(recipe).as_markdown()}"
    create_markdown_artifact(key="estimate", markdown=text)


def _run(
    work: Callable[[Recipe], Any],
    recipe: str,
    overrides: Sequence[str],
    *,
    dry_run: bool = False,
    limits_itself: bool = False,
) -> None:
    """Runs the flow inside the deployment's own run, so artifacts and approval requests appear on
    it.

    The run is cancelled if another one writes and this one must not wait. Once it has begun it
    waits for others, so that neither its rows nor a person's approval are lost. It ends after the
    recipe's time limit, unless `work` limits itself.
    """
    loaded = _load(recipe, overrides)
    if dry_run:
        _publish_estimate(loaded)
        return
    if loaded.nightly.when_busy == "cancel":
        os.environ["PRECEPT_WAIT_SECONDS"] = "0"
        try:
            with lock(home_at(None)):
                pass
        except BusyError as error:
            _cancel(str(error))
    hours = loaded.nightly.hours
    os.environ["PRECEPT_WAIT_SECONDS"] = str(3600 * hours)
    if limits_itself:
        work(loaded)
        return
    with told_as_timeout(hours), timeout(3600 * hours):
        work(loaded)


@flow(flow_run_name=_run_name, persist_result=False)
def nightly(recipe: RecipeName, overrides: tuple[str, ...] = (), dry_run: bool = False) -> None:
    """Takes in new prompts and edited policies, makes what is missing, and reports the changes.

    Args:
        recipe: The recipe to refresh.
        overrides: Changes to it, one a line, such as judge.samples=8.
        dry_run: Only estimate the rows and their cost.
    """
    work = flows.nightly.nightly.fn
    _run(work, recipe, overrides, dry_run=dry_run, limits_itself=True)


@flow(flow_run_name=_run_name, persist_result=False)
def align(recipe: RecipeName, overrides: tuple[str, ...] = (), dry_run: bool = False) -> None:
    """Refreshes the data, trains on it, and evaluates the models.

    Args:
        recipe: The recipe to run.
        overrides: Changes to it, one a line, such as sft.epochs=2.
        dry_run: Only estimate the rows of the refresh and their cost.
    """
    _run(flows.align.align.fn, recipe, overrides, dry_run=dry_run)


@flow(flow_run_name=_run_name, persist_result=False)
def train(recipe: RecipeName, overrides: tuple[str, ...] = ()) -> None:
    """Trains on the examples: midtraining, SFT, DPO and RL, as the recipe says.

    Args:
        recipe: The recipe whose examples to train on.
        overrides: Changes to it, one a line, such as sft.epochs=2.
    """
    _run(flows.train.train.fn, recipe, overrides)


@flow(flow_run_name=_run_name, persist_result=False)
def evaluate(
    recipe: RecipeName, overrides: tuple[str, ...] = (), checkpoints: tuple[str, ...] = ()
) -> None:
    """Evaluates the base model and the newest checkpoints, side by side.

    Args:
        recipe: The recipe whose models to evaluate.
        overrides: Changes to it, one a line, such as evaluate.samples=4.
        checkpoints: Ids of checkpoints, or their starts; none for those of the latest training.
    """
    work = flows.evaluate.evaluate.fn
    _run(lambda loaded: work(loaded, None, list(checkpoints) or None), recipe, overrides)


@flow(flow_run_name=_run_name, persist_result=False)
def ablate(recipe: RecipeName, overrides: tuple[str, ...] = ()) -> None:
    """Trains and evaluates the arms of an ablation, side by side.

    Args:
        recipe: The recipe with the arms.
        overrides: Changes to it, one a line, such as ablate.samples=4.
    """
    _run(flows.ablate.ablate.fn, recipe, overrides)


def _cancel(why: str) -> NoReturn:
    """Ends this process's run as cancelled, with the reason."""
    name = flow_run.get_id()
    assert name
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(name, Cancelled(message=why), force=True)
    # Returning a state would log a traceback; Abort leaves the state as it was set.
    raise Abort(why)


def deployments(recipe: Recipe, name: str, overrides: Sequence[str] = ()) -> list[RunnerDeployment]:
    """Returns every flow as Prefect offers it, with a recipe and overrides filled in."""
    config = recipe.nightly
    busy = (
        ConcurrencyLimitStrategy.ENQUEUE
        if config.when_busy == "queue"
        else ConcurrencyLimitStrategy.CANCEL_NEW
    )
    served: dict[str, Flow[..., Any]] = {
        "refresh-nightly": nightly,
        "align": align,
        "train": train,
        "evaluate": evaluate,
        "ablate": ablate,
    }
    deployed = []
    for title, served_flow in served.items():
        deployment = served_flow.to_deployment(
            title,
            parameters={"recipe": name, "overrides": list(overrides)},
            schedule=Cron(config.cron, timezone=config.timezone)
            if served_flow is nightly
            else None,
            concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=busy),
            tags=["precept", recipe.name],
            description=served_flow.description,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        assert isinstance(deployment, RunnerDeployment)
        deployed.append(deployment)
    return deployed


def serve_all(recipe: Recipe, name: str, overrides: Sequence[str] = ()) -> None:
    """Serves the deployments from this process until it is stopped."""
    serve(*deployments(recipe, name, overrides))
