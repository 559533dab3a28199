"""What the Prefect UI offers: every flow with a form of its own, and the nightly schedule.

A form names a recipe and changes of it. Rows and policy text never pass through Prefect, which
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

from flows import ablate as ablating
from flows import align as aligning
from flows import evaluate as evaluating
from flows import nightly as refreshing
from flows import train as training
from flows.estimate import estimate
from flows.lock import BusyError, lock
from flows.recipe import Recipe, load_recipe, shipped_recipes
from flows.run import home_at


def known_recipes() -> list[str]:
    """Files of the folder `$PRECEPT_RECIPES`, the recipes that ship, and `$PRECEPT_RECIPE`."""
    folder = os.environ.get("PRECEPT_RECIPES")
    own = sorted(str(path) for path in Path(folder).absolute().glob("*.toml")) if folder else []
    chosen = os.environ.get("PRECEPT_RECIPE")
    return list(dict.fromkeys([*own, *shipped_recipes(), *([chosen] if chosen else [])]))


if TYPE_CHECKING:
    RecipeName = str
else:
    # The form lets one choose of what is known when it is served; the process of a run, which has
    # the same environment, checks the choice against the same list.
    RecipeName = Literal[tuple(known_recipes())]


def _run_name() -> str:
    """What the flow does to which recipe, however that was named."""
    recipe = Path(flow_run.get_parameters()["recipe"])
    return f"{flow_run.get_flow_name()} {recipe.stem}"


def _wanted(recipe: str, overrides: list[str], dry_run: bool) -> Recipe | None:
    """The recipe of a form; None where it is only to be told what would be made."""
    loaded = load_recipe(recipe, overrides=overrides)
    loaded.load_pack()
    if not dry_run:
        return loaded
    told = estimate(loaded).as_markdown()
    create_markdown_artifact(key="estimate", markdown=f"# {loaded.name} would make\n\n{told}")
    return None


def _run(
    work: Callable[[Recipe], Any],
    recipe: str,
    overrides: Sequence[str],
    *,
    dry_run: bool = False,
    limits_itself: bool = False,
) -> None:
    """Does what a form asks for, in the very run that the form started, so that what it shows and
    asks stands there.

    Cancelled where another run writes and this one is not to wait. Once it has begun it waits for
    others, so that neither what it has made nor what a person has approved is lost. Ended when it
    takes longer than the recipe allows, unless `work` sees to that itself.
    """
    wanted = _wanted(recipe, list(overrides), dry_run)
    if wanted is None:
        return
    if wanted.nightly.when_busy == "cancel":
        os.environ["PRECEPT_WAIT_SECONDS"] = "0"
        try:
            with lock(home_at(None)):
                pass
        except BusyError as error:
            _cancel(str(error))
    seconds = 3600 * wanted.nightly.hours
    os.environ["PRECEPT_WAIT_SECONDS"] = str(seconds)
    with timeout(None if limits_itself else seconds):
        work(wanted)


@flow(flow_run_name=_run_name, persist_result=False)
def nightly(recipe: RecipeName, overrides: tuple[str, ...] = (), dry_run: bool = False) -> None:
    """Takes in new prompts and edited policies, makes only what is missing, and tells what changed.

    Args:
        recipe: The recipe to refresh.
        overrides: Changes of it, one a line, as judge.samples=8.
        dry_run: Only tell what would be made, and what it would cost.
    """
    work = refreshing.nightly.fn
    _run(work, recipe, overrides, dry_run=dry_run, limits_itself=True)


@flow(flow_run_name=_run_name, persist_result=False)
def align(recipe: RecipeName, overrides: tuple[str, ...] = (), dry_run: bool = False) -> None:
    """Refreshes the data, trains on it, and evaluates what came of it.

    Args:
        recipe: The recipe to run.
        overrides: Changes of it, one a line, as sft.epochs=2.
        dry_run: Only tell what the refresh would make, and what it would cost.
    """
    _run(aligning.align.fn, recipe, overrides, dry_run=dry_run)


@flow(flow_run_name=_run_name, persist_result=False)
def train(recipe: RecipeName, overrides: tuple[str, ...] = ()) -> None:
    """Trains on the examples that are there: SFT, DPO and RL, as the recipe says.

    Args:
        recipe: The recipe whose examples to train on.
        overrides: Changes of it, one a line, as sft.epochs=2.
    """
    _run(training.train.fn, recipe, overrides)


@flow(flow_run_name=_run_name, persist_result=False)
def evaluate(recipe: RecipeName, overrides: tuple[str, ...] = ()) -> None:
    """Evaluates the base model and the newest checkpoints, side by side.

    Args:
        recipe: The recipe whose models to evaluate.
        overrides: Changes of it, one a line, as evaluate.samples=4.
    """
    _run(evaluating.evaluate.fn, recipe, overrides)


@flow(flow_run_name=_run_name, persist_result=False)
def ablate(recipe: RecipeName, overrides: tuple[str, ...] = ()) -> None:
    """Trains and evaluates the arms of an ablation, side by side.

    Args:
        recipe: The recipe with the arms.
        overrides: Changes of it, one a line, as ablate.samples=4.
    """
    _run(ablating.ablate.fn, recipe, overrides)


def _cancel(why: str) -> NoReturn:
    """Ends the run that this process is for as cancelled, and says why; it is no fault."""
    name = flow_run.get_id()
    assert name
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(name, Cancelled(message=why), force=True)
    # A state that is returned would be an error in the log.
    raise Abort(why)


def deployments(recipe: Recipe, name: str, overrides: Sequence[str] = ()) -> list[RunnerDeployment]:
    """Every flow as Prefect offers it, with a recipe and changes of it chosen beforehand, and its
    schedule."""
    config = recipe.nightly
    busy = (
        ConcurrencyLimitStrategy.ENQUEUE
        if config.when_busy == "queue"
        else ConcurrencyLimitStrategy.CANCEL_NEW
    )
    offered: dict[str, Flow[..., Any]] = {
        "refresh-nightly": nightly,
        "align": align,
        "train": train,
        "evaluate": evaluate,
        "ablate": ablate,
    }
    made = []
    for title, one in offered.items():
        deployment = one.to_deployment(
            title,
            parameters={"recipe": name, "overrides": list(overrides)},
            schedule=Cron(config.cron, timezone=config.timezone) if one is nightly else None,
            concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=busy),
            tags=["precept", recipe.name],
            description=one.description,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        assert isinstance(deployment, RunnerDeployment)
        made.append(deployment)
    return made


def serve_all(recipe: Recipe, name: str, overrides: Sequence[str] = ()) -> None:
    """Serves the deployments from this process until it is stopped."""
    serve(*deployments(recipe, name, overrides))
