"""A task as Prefect sees it: the tables it makes, its progress, and which faults to retry."""

import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, cast

import duckdb
import httpx
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.assets import add_asset_metadata
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import AssetContext, TaskRunContext
from prefect.tasks import MaterializingTask, exponential_backoff
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

from flows import terminal
from flows.run import RunContext
from tasks.engine.cluster import RoomError, start_ray
from tasks.engine.requests import EngineConfig, EngineError
from tasks.meters import Meter
from tasks.monitors import Monitored, monitor_rows
from tasks.stage import (
    FunctionWork,
    Stage,
    StageConfig,
    StageError,
    StageFigures,
    StageInterrupted,
    Work,
)
from tasks.training.trainer import TrainError, WorkersLost
from warehouse.catalog import Pending
from warehouse.characters import one_line
from warehouse.home import Home, may_pass
from warehouse.shards import write_shard

P = ParamSpec("P")
R = TypeVar("R")
Making = Callable[Concatenate[RunContext, P], R]

_LINE_EVERY_SECONDS = 10.0
_ARTIFACT_EVERY_SECONDS = 2.0


def is_transient(task: Any, run: Any, state: State[Any]) -> bool:
    """Returns whether a retry may help a failed task: a node, a store or a network was away.

    Bad data, a full disk and a model that cannot be loaded stay as they are.
    """
    error = state.result(raise_on_failure=False)
    if isinstance(error, StageError | TrainError | EngineError | RoomError):
        # Already classified where it was raised.
        return isinstance(error, StageInterrupted | WorkersLost)
    while isinstance(error, BaseException):
        if may_pass(error) or isinstance(error, httpx.TransportError):
            return True
        if isinstance(error, httpx.HTTPStatusError) and error.response.status_code >= 500:
            return True
        # DuckDB raises subclasses for faults of a query; the base class is a fault of its files.
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
"""Options of a task that is retried after 10, 20 and 40 seconds if its fault is transient."""


def is_last_try() -> bool:
    """Returns whether Prefect will not retry the task that runs now, whatever its fault."""
    context = TaskRunContext.get()
    return context is not None and context.task_run.run_count > RETRIED["retries"]


def asset_key(home: Home, table: str) -> str:
    """Returns Prefect's name for a table of a warehouse, which may hold few characters."""
    url = str(home.files.unstrip_protocol(home.folder(table)))
    return re.sub(r"[^A-Za-z0-9:/._-]", "_", url)


def makes(
    name: str, *tables: str, of: Sequence[str] = (), **options: Any
) -> Callable[[Making[P, R]], Making[P, R]]:
    """Decorates a task whose rows land in tables of its run's warehouse, made of other tables.

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


@makes("monitor", "findings", of=("completions", "answers"))
def monitor_reasoning(run: RunContext, kind: Literal["completions", "answers"]) -> Monitored:
    """Lets the monitors read the reasoning that they have not read; nothing else goes by it."""
    monitored = monitor_rows(run.warehouse(), kind, home=run.home, run_id=run.id)
    run.note(monitors={**run.figures.monitors, kind: monitored})
    return monitored


def describe_asset(run: RunContext, table: str, metadata: dict[str, Any]) -> None:
    """Adds what this run did to a table to its asset, inside a task that makes the table."""
    key = asset_key(run.home, table)
    context = AssetContext.get()
    if context and key in {asset.key for asset in context.downstream_assets}:
        add_asset_metadata(key, {"run_id": run.id, **metadata})


def run_stage(run: RunContext, work: Work, engine: EngineConfig) -> StageFigures:
    """Makes the rows that the warehouse lacks, and retries those that are worth it.

    Each retry asks the warehouse again, and puts one row in a block: a row that crashes an engine
    then fails alone.
    """
    for attempt in range(run.recipe.stage.retries + 1):
        pending = work.pending(run.warehouse())
        if not pending.num_units:
            break
        config = run.recipe.stage if attempt == 0 else run.recipe.stage.one_by_one
        _make(run, work, engine, pending, config)
    total = run.add_stage(work.name, StageFigures(table=work.table.name))
    describe_asset(run, work.table.name, {"rows": total.num_rows, **total.statuses})
    return total


def run_function(run: RunContext, work: FunctionWork) -> StageFigures:
    """Makes the rows that the warehouse lacks by a function of the recipe, without an engine."""
    waves = work.pending(run.warehouse())
    units = [work.unit(**row) for wave in waves for row in wave.to_pylist()]
    rows = work.make_by_function(units)
    write_shard(run.home, work.table, rows)
    figures = StageFigures(
        table=work.table.name,
        num_units=len(units),
        num_rows=len(rows),
        statuses=Counter(row.status for row in rows),
    )
    total = run.add_stage(work.name, figures)
    describe_asset(run, work.table.name, {"rows": total.num_rows, **total.statuses})
    return total


_UNITS = {"judgements": "texts"}
"""What a stage counts, by its table, where its name would have readers expect other rows."""


def _make(
    run: RunContext, work: Work, engine: EngineConfig, pending: Pending, config: StageConfig
) -> None:
    """Makes what is pending and shows progress; counts what was done, also after a fault."""
    start_ray()
    meter, verb, num_waiting = Meter.of_cluster(), work.name.split()[0], pending.num_units
    meter.begin(verb, work.table.name)
    stage = Stage(work, run.engines, engine, run.home, config)
    with (
        prefect_progress(work.name) as publish,
        progress_bar(
            work.name, num_waiting, publish=publish, unit=_UNITS.get(work.table.name, "")
        ) as advance,
    ):

        def committed(num_units: int) -> None:
            nonlocal num_waiting
            num_waiting -= num_units
            advance(num_units)
            meter.set("precept_waiting", num_waiting, stage=verb)

        meter.set("precept_waiting", num_waiting, stage=verb)
        try:
            stage.run(pending, committed)
        except StageInterrupted:
            # The retry starts engines on the nodes that are left.
            run.engines.close()
            raise
        finally:
            run.add_stage(work.name, stage.figures)
            _meter_usage(meter, verb, stage.figures)


def _meter_usage(meter: Meter, verb: str, figures: StageFigures) -> None:
    """Adds a stage's tokens and GPU-seconds to Prometheus's counters."""
    usage = figures.usage
    meter.set("precept_waiting", 0, stage=verb)
    meter.add("precept_tokens", usage.prompt_tokens, stage=verb, kind="prompt")
    meter.add("precept_tokens", usage.cached_tokens, stage=verb, kind="cached")
    meter.add("precept_tokens", usage.output_tokens, stage=verb, kind="output")
    meter.add("precept_gpu_seconds", figures.gpu_seconds, stage=verb)


class Rate(ProgressColumn):
    """Rows per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


@contextmanager
def progress_bar(
    title: str,
    total: int,
    *,
    publish: Callable[[float], None] = lambda percent: None,
    unit: str = "",
) -> Iterator[Callable[[int], None]]:
    """Shows the progress of a stage on stderr; yields a function that takes newly finished rows.

    A terminal gets a bar with rate and time left; anything else a line at the start and the end,
    and at most one every ten seconds between.
    `publish` takes the finished share in percent, every two seconds; `unit` names what is counted.
    """
    console, title = terminal.console(err=True), one_line(title)
    bar = Progress(
        TextColumn("{task.description:<12}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    state = _State()

    def say(words: str) -> None:
        if not console.is_terminal:
            terminal.line(f"{title}: {words}", err=True)

    say(f"{total} {unit} to do" if unit else f"{total} to do")
    with bar:
        row = bar.add_task(title, total=total)

        def advance(count: int) -> None:
            bar.advance(row, count)
            now = time.monotonic()
            # The first rows waited for actors to start, so the rate leaves them out.
            if state.done == 0:
                state.began = state.printed = now
                state.before = count
            state.done += count
            if now - state.published > _ARTIFACT_EVERY_SECONDS:
                state.published = now
                publish(100 * state.done / max(1, total))
            if now - state.printed > _LINE_EVERY_SECONDS:
                state.printed = now
                rate = (state.done - state.before) / max(0.1, now - state.began)
                left = (total - state.done) / max(0.01, rate)
                say(f"{state.done} of {total}, {rate:.1f}/s, {left:.0f} s left")

        yield advance
    say(f"{state.done} of {total} done")
    publish(100.0)


def say_how_to_look(run: RunContext) -> None:
    """Publishes the command that opens the rows of a run in a browser; its address has a token that
    only the command knows."""
    command = f"precept inspect --run {run.id[:12]} --home {shlex.quote(run.home.url)}"
    create_markdown_artifact(
        key="inspect",
        markdown=f"Read and review what this run made, where its warehouse can be reached:\n\n"
        f"    {command}\n",
        description="How to look at the data",
    )


def artifact_key(name: str) -> str:
    """Returns a name as Prefect takes it: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@contextmanager
def prefect_progress(name: str) -> Iterator[Callable[[float], None]]:
    """Creates a progress artifact of the task run; yields a function that takes the percentage.

    An update is skipped while the server is away: progress must not end the work.
    """
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
