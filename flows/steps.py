"""A task that makes rows, as Prefect sees it: what its tables are made of, how far it is, and
whether a fault is worth another try.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import duckdb
import httpx
from prefect.assets import add_asset_metadata
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import AssetContext
from prefect.tasks import MaterializingTask, exponential_backoff
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from flows.run import RunContext
from tasks import stage
from tasks.engine.requests import EngineConfig, EngineError
from tasks.meters import Meter
from tasks.training.trainer import TrainError, WorkersLost
from warehouse.home import Home, may_pass

P = ParamSpec("P")
R = TypeVar("R")
Making = Callable[Concatenate[RunContext, P], R]


def is_transient(task: Any, run: Any, state: State[Any]) -> bool:
    """Whether the fault of a task may be over when it is tried again: a node, a store, a network.

    Bad data, a full disk and a model that cannot be loaded stay as they are.
    """
    error = state.result(raise_on_failure=False)
    if isinstance(error, stage.StageError | TrainError | EngineError):
        # What caused them was looked at where it was known.
        return isinstance(error, stage.StageInterrupted | WorkersLost)
    while isinstance(error, BaseException):
        if may_pass(error) or isinstance(error, httpx.TransportError):
            return True
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code >= 500:
            return True
        # DuckDB has classes for what is wrong with a query; this is a fault of a file system.
        if type(error) is duckdb.Error or isinstance(error, duckdb.IOException):
            return True
        error = error.__cause__
    return False


RETRIED: Any = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(10),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_transient,
}
"""Options of a task that is tried again after 10, 20 and 40 seconds, where that may help."""


def asset_key(home: Home, table: str) -> str:
    """What Prefect calls a table of a warehouse; it takes few characters."""
    url = str(home.files.unstrip_protocol(home.folder(table)))
    return re.sub(r"[^A-Za-z0-9:/._-]", "_", url)


def makes(
    name: str, *tables: str, of: Sequence[str] = (), **options: Any
) -> Callable[[Making[P, R]], Making[P, R]]:
    """A task whose rows land in tables of its run's warehouse, and which tables they are made of.

    The tables are assets of Prefect, so that its events tell the lineage.
    """

    def decorate(work: Making[P, R]) -> Making[P, R]:
        @wraps(work)
        def call(run: RunContext, *args: P.args, **kwargs: P.kwargs) -> R:
            task = MaterializingTask(
                work,
                name=name,
                assets=[asset_key(run.home, table) for table in tables],
                asset_deps=[asset_key(run.home, table) for table in of],
                cache_policy=NO_CACHE,
                **RETRIED | options,
            )
            return task(run, *args, **kwargs)

        return cast("Making[P, R]", call)

    return decorate


def describe_asset(run: RunContext, table: str, told: dict[str, Any]) -> None:
    """Says of a table what this run has done to it, where a task is at work that makes it."""
    key = asset_key(run.home, table)
    context = AssetContext.get()
    if context and key in {asset.key for asset in context.downstream_assets}:
        add_asset_metadata(key, {"run_id": run.id, **told})


def run_stage(
    run: RunContext,
    name: str,
    work: stage.Work,
    engine: EngineConfig,
    find_pending: Callable[[duckdb.DuckDBPyConnection], stage.Pending],
) -> stage.StageFigures:
    """Asks for what is missing and makes it; asks again for what is worth another try."""
    for attempt in range(run.recipe.stage.retries + 1):
        pending = find_pending(run.warehouse())
        if not pending.num_units:
            break
        # Alone in its block, a row that kills engines takes no other with it.
        config = run.recipe.stage if attempt == 0 else run.recipe.stage.one_by_one
        _make(run, name, work, engine, pending, config)
    total = run.reports.get(name, stage.StageFigures())
    run.figures[name] = {**total.as_dict(), "gpus": engine.num_gpus}
    describe_asset(run, work.table.name, {"rows": total.num_rows, **total.statuses})
    return total


def _make(
    run: RunContext,
    name: str,
    work: stage.Work,
    engine: EngineConfig,
    pending: stage.Pending,
    config: stage.StageConfig,
) -> None:
    """Makes what is pending, shows how far it is, and counts what was done, whatever happens."""
    stage.start_ray(os.environ.get("RAY_ADDRESS"))
    meter, verb, left = Meter.of_cluster(), name.split()[0], pending.num_units
    meter.begin(verb, work.table.name)
    with (
        prefect_progress(name) as publish,
        progress_bar(name, left, publish=publish) as advance,
    ):

        def committed(count: int) -> None:
            nonlocal left
            left -= count
            advance(count)
            meter.set("precept_waiting", left, stage=verb)

        meter.set("precept_waiting", left, stage=verb)
        made = stage.StageFigures()
        try:
            stage.run(
                work,
                pending,
                engines=run.engines,
                engine=engine,
                home=run.home,
                config=config,
                progress=committed,
                report=made,
            )
        except stage.StageInterrupted:
            # Whoever tries again starts engines where there still are nodes.
            run.engines.close()
            raise
        finally:
            total = run.reports[name] = run.reports.get(name, stage.StageFigures()) + made
            run.figures[name] = {**total.as_dict(), "gpus": engine.num_gpus}
            tokens = made.engine
            meter.set("precept_waiting", 0, stage=verb)
            meter.add("precept_tokens", tokens.prompt_tokens, stage=verb, kind="prompt")
            meter.add("precept_tokens", tokens.cached_tokens, stage=verb, kind="cached")
            meter.add("precept_tokens", tokens.output_tokens, stage=verb, kind="output")
            meter.add("precept_gpu_seconds", made.seconds * engine.num_gpus, stage=verb)


_LINE_EVERY_SECONDS = 30.0


_ARTIFACT_EVERY_SECONDS = 2.0


class Rate(ProgressColumn):
    """Rows a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


@contextmanager
def progress_bar(
    title: str, total: int, *, publish: Callable[[float], None] = lambda percent: None
) -> Iterator[Callable[[int], None]]:
    """Shows how far a stage is; yields what to call with the number of rows just finished.

    On a terminal a bar with rate and time left, else a line every half minute, on stderr.
    `publish` is told the share that is done, in percent, every two seconds.
    """
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    state = _State()
    with bar:
        row = bar.add_task(title, total=total)

        def advance(count: int) -> None:
            bar.advance(row, count)
            now = time.monotonic()
            # The first rows wait for actors to start: the rate is that of the rows after them.
            if state.done == 0:
                state.began = state.printed = now
                state.before = count
            state.done += count
            if now - state.published > _ARTIFACT_EVERY_SECONDS:
                state.published = now
                publish(100 * state.done / max(1, total))
            if not console.is_terminal and now - state.printed > _LINE_EVERY_SECONDS:
                state.printed = now
                rate = (state.done - state.before) / max(0.1, now - state.began)
                left = (total - state.done) / max(0.01, rate)
                print(
                    f"{title}: {state.done} of {total}, {rate:.1f}/s, {left:.0f} s left",
                    file=sys.stderr,
                    flush=True,
                )

        yield advance
    publish(100.0)


def artifact_key(name: str) -> str:
    """A name as Prefect takes it: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@contextmanager
def prefect_progress(name: str) -> Iterator[Callable[[float], None]]:
    """A progress artifact of the task run; yields what to tell the percentage.

    What is only for looking at is left out while the server is away.
    """
    import httpx
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    artifact = create_progress_artifact(
        progress=0.0, key=artifact_key(name), description=f"Progress of {name}"
    )

    def publish(percent: float) -> None:
        with suppress(httpx.HTTPError):
            update_progress_artifact(
                artifact_id=artifact,  # type: ignore[arg-type]
                progress=percent,
            )

    yield publish


@dataclass(slots=True)
class _State:
    done: int = 0
    before: int = 0
    began: float = field(default_factory=time.monotonic)
    printed: float = field(default_factory=time.monotonic)
    published: float = 0.0
