"""Pending rows → Ray Data actor pool → committed shards.

The only place that knows how work is spread. A stage takes units of work (what a query found
missing), cuts them into small blocks of one category, and lets Ray Data keep several blocks in
flight for every engine. A block's rows are committed as one shard by the actor that made them,
before it reports; the driver sees only counts. Whatever is killed is found missing by the next
query.
"""

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol

import duckdb
import pyarrow as pa
from pydantic import Field

from tasks import Config
from tasks.engine.pool import Engines
from tasks.engine.replicas import Replicas
from tasks.engine.requests import Engine, EngineConfig, Usage
from tasks.meters import Meter
from warehouse.home import Home, may_pass
from warehouse.shards import write_shard
from warehouse.tables import Table

_log = logging.getLogger("precept.stage")
# Without a level of its own it would have the root's, which is for warnings.
logging.getLogger("precept").setLevel(logging.INFO)


class StageConfig(Config):
    """How work is spread, and how often it is tried."""

    block_rows: int = Field(16, gt=0)
    """Units in one block: a block is committed as one shard."""
    blocks_in_flight: int = Field(8, gt=0)
    """Blocks that one engine works on at once; with the block's units and samples it should be a
    little more than the engine's max_num_seqs."""
    wave_rows: int = Field(100_000, gt=0)
    """Units that are planned and held in memory at a time."""
    retries: int = Field(1, ge=0)
    """How often a row is tried again after an engine error or an unreadable verdict."""
    error_attempts: int = Field(5, gt=0)
    """Attempts, over all runs, of a row that is an engine error: each later run makes one more."""
    max_error_share: float = Field(0.5, gt=0, le=1)
    """A stage ends early when more than this share of its first 100 or more rows are errors."""

    @property
    def one_by_one(self) -> "StageConfig":
        """The same with a single unit in each block."""
        return self.model_copy(update={"block_rows": 1})


class StageError(RuntimeError):
    """A stage that could not go on; what it had committed is kept."""


class StageInterrupted(StageError):
    """A stage that something outside ended: a node, the network, a store. It can go on."""


class Work(Protocol):
    """What a stage does with its units: a verb, picklable, without a model of its own."""

    @property
    def table(self) -> Table: ...

    @property
    def run_id(self) -> str: ...

    async def make(self, units: Sequence[dict[str, Any]], engine: Engine) -> list[Any]:
        """The rows that these units were missing."""
        ...


@dataclass(slots=True)
class StageFigures:
    """What a stage did."""

    num_units: int = 0
    num_rows: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    """Without the time for engines to start."""
    tail_seconds: float = 0.0
    """Time for the last 5 % of the units."""
    engine: Usage = field(default_factory=Usage)

    @property
    def cache_hit_rate(self) -> float:
        """Share of prompt tokens that the prefix cache served."""
        return self.engine.cached_tokens / max(1, self.engine.prompt_tokens)

    def __add__(self, other: "StageFigures") -> "StageFigures":
        """Two passes of a stage as one."""
        engine = Usage(
            self.engine.prompt_tokens + other.engine.prompt_tokens,
            self.engine.cached_tokens + other.engine.cached_tokens,
            self.engine.output_tokens + other.engine.output_tokens,
            self.engine.steps + other.engine.steps,
            other.engine.running,
            max(self.engine.seconds_to_start, other.engine.seconds_to_start),
        )
        return StageFigures(
            num_units=self.num_units + other.num_units,
            num_rows=self.num_rows + other.num_rows,
            statuses=self.statuses + other.statuses,
            seconds=self.seconds + other.seconds,
            tail_seconds=max(self.tail_seconds, other.tail_seconds),
            engine=engine,
        )

    def as_dict(self) -> dict[str, Any]:
        """Usage for the record of the run."""
        return {
            "units": self.num_units,
            "rows": self.num_rows,
            "statuses": dict(self.statuses),
            "seconds": round(self.seconds, 2),
            "tail_seconds": round(self.tail_seconds, 2),
            "prompt_tokens": self.engine.prompt_tokens,
            "cached_tokens": self.engine.cached_tokens,
            "cache_hit_rate": round(self.cache_hit_rate, 4),
            "output_tokens": self.engine.output_tokens,
            "output_tokens_per_second": round(self.engine.output_tokens / max(0.01, self.seconds)),
            "seconds_to_start": round(self.engine.seconds_to_start, 2),
        }


Progress = Callable[[int], None]
"""Told how many units have been committed since it was last told."""


def run(
    work: Work,
    waves: Iterable[pa.Table],
    *,
    engines: Engines,
    engine: EngineConfig,
    home: Home,
    config: StageConfig,
    progress: Progress = lambda num_units: None,
    report: StageFigures | None = None,
) -> StageFigures:
    """Does all the work in `waves` (tables of units, in the order wanted) and reports.

    `report` is written to as the work goes on, and says what was done before a fault. Starts no
    engine where there is nothing to do. Logs a line for each shard. Raises StageError where shards
    cannot be written or most rows are engine errors, and StageInterrupted where it is worth another
    try.
    """
    report = report or StageFigures()
    meter: Meter | None = None
    began: float | None = None
    finished: list[tuple[float, int]] = []
    before: Usage | None = None
    try:
        for wave in waves:
            if wave.num_rows == 0:
                continue
            handles = engines.serving(engine)
            meter = meter or Meter.of_cluster()
            with ThreadPoolExecutor(1) as starter:
                committed = _spread(work, wave, handles, home, config)
                # The pool of workers starts while the models load.
                first = starter.submit(next, committed, None)
                try:
                    engines.wait()
                    before = before or engines.figures()
                    began = began or time.monotonic()
                    counts = first.result()
                except BaseException:
                    # Nothing waits for engines that are not wanted any more.
                    engines.close()
                    raise
            for done in itertools.chain([counts] if counts else [], committed):
                report.num_units += done["num_units"]
                report.num_rows += done["num_rows"]
                report.statuses.update(done["statuses"])
                finished.append((time.monotonic(), done["num_units"]))
                progress(done["num_units"])
                _tell(done, work, meter)
                _stop_if_failing(report, config, work.table.name)
    finally:
        if before is not None and began is not None:
            report.seconds = time.monotonic() - began
            report.engine = engines.figures().since(before)
        report.tail_seconds = _tail(finished)
    return report


def _tell(done: dict[str, Any], work: Work, meter: Meter) -> None:
    """Logs what was committed in one line, and counts it."""
    statuses = done["statuses"]
    told = " ".join(f"{status}={count}" for status, count in sorted(statuses.items()))
    shard = PurePosixPath(done["shard"] or "none").stem
    _log.info(
        f"committed table={work.table.name} shard={shard} rows={done['num_rows']} {told} "
        f"run={work.run_id}"
    )
    for fault in done["faults"]:
        _log.warning(f"fault table={work.table.name} shard={shard} run={work.run_id}: {fault}")
    for status, count in statuses.items():
        meter.add("precept_rows", count, table=work.table.name, status=status)


def _tail(finished: Sequence[tuple[float, int]]) -> float:
    total = sum(count for _, count in finished)
    seen = 0
    for when, count in finished:
        seen += count
        if seen >= 0.95 * total:
            return finished[-1][0] - when
    return 0.0


def _stop_if_failing(report: StageFigures, config: StageConfig, table: str) -> None:
    errors = report.statuses["error"]
    if report.num_rows >= 100 and errors > config.max_error_share * report.num_rows:
        raise StageError(
            f"{errors} of the first {report.num_rows} rows are engine errors; read one with "
            f"precept sql \"select reason from {table} where status = 'error' limit 1\""
        )


def blocks(wave: pa.Table, *, block_rows: int) -> Iterator[pa.Table]:
    """Cuts units into blocks of at most `block_rows`, each of one spec."""
    start = 0
    spec_ids = wave.column("spec_id").to_pylist()
    for end in range(1, len(spec_ids) + 1):
        full = end - start == block_rows
        if end == len(spec_ids) or full or spec_ids[end] != spec_ids[start]:
            yield wave.slice(start, end - start)
            start = end


def _spread(
    work: Work, wave: pa.Table, handles: Sequence[Any], home: Home, config: StageConfig
) -> Iterator[dict[str, Any]]:
    """Runs one wave through Ray Data; yields the counts of each block as it is committed."""
    import ray
    import ray.data
    from ray.exceptions import RayError

    # As items, for which Ray Data needs no processor: engines may hold them all.
    packed = [{"block": _pack(block)} for block in blocks(wave, block_rows=config.block_rows)]
    in_flight = config.blocks_in_flight
    committed = ray.data.from_items(packed, override_num_blocks=len(packed)).map_batches(
        Worker,
        fn_constructor_kwargs={"work": work, "handles": list(handles), "home": home},
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=0,
        compute=ray.data.ActorPoolStrategy(
            size=len(handles),
            max_tasks_in_flight_per_actor=2 * in_flight,
            max_concurrent_calls_per_actor=in_flight,
        ),
    )
    try:
        for batch in committed.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in batch.to_pylist():
                yield {**row, "statuses": Counter(row["statuses"])}
    except (RayError, OSError) as error:
        fault = _innermost(error)
        lost = isinstance(fault, _lost_by_ray())
        kind = StageInterrupted if lost or may_pass(fault) else StageError
        lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
        # Ray ends its own messages with what matters, and those of others with advice.
        said = (lines[-1] if isinstance(fault, RayError) else lines[0]) if lines else "no message"
        raise kind(
            f"stage {work.table.name} stopped: {type(fault).__name__}: {said}; what was committed "
            "is kept, mend the cause and run the same command again"
        ) from error


def _pack(block: pa.Table) -> bytes:
    """A table as bytes, in Arrow's format for streams."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, block.schema) as stream:
        stream.write_table(block)
    return bytes(sink.getvalue().to_pybytes())


def _lost_by_ray() -> tuple[type[Exception], ...]:
    """What Ray raises of nodes and processes that are gone; all else is what code raised."""
    from ray import exceptions as ray

    return (
        ray.RayActorError,
        ray.WorkerCrashedError,
        ray.NodeDiedError,
        ray.ObjectLostError,
        ray.OutOfMemoryError,
        ray.RaySystemError,
    )


def _innermost(error: BaseException) -> BaseException:
    """What went wrong first: Ray wraps it several times."""
    while inner := getattr(error, "cause", None) or error.__cause__:
        error = inner
    return error


@dataclass(frozen=True, slots=True)
class Pending:
    """What a query found missing: how many units, and the units in waves."""

    num_units: int
    waves: Iterator[pa.Table]

    def __iter__(self) -> Iterator[pa.Table]:
        return self.waves

    @classmethod
    def of(
        cls, connection: duckdb.DuckDBPyConnection, *, count: str, units: str, rows: int
    ) -> "Pending":
        """Units by two queries: one counts them, the other gives them, `rows` a wave."""
        [(num_units,)] = connection.execute(count).fetchall()
        return cls(int(num_units), _waves(connection, units, rows))


def _waves(connection: duckdb.DuckDBPyConnection, sql: str, rows: int) -> Iterator[pa.Table]:
    for batch in connection.sql(sql).to_arrow_reader(rows):
        yield pa.Table.from_batches([batch])


class Worker:
    """One actor of the pool: asks engines for what its blocks lack and commits the rows."""

    def __init__(self, work: Work, handles: Sequence[Any], home: Home) -> None:
        self.work = work
        self.home = home
        self.engine = Replicas(handles)

    async def __call__(self, packed: pa.Table) -> Any:
        block = pa.ipc.open_stream(packed.column("block")[0].as_py()).read_all()
        rows = await self.work.make(block.to_pylist(), self.engine)
        path = write_shard(self.home, self.work.table, rows)
        statuses = [row.status for row in rows]
        reasons = {str(getattr(row, "reason", None)) for row in rows if row.status == "error"}
        faults = {reason.splitlines()[0] for reason in reasons if reason}
        yield pa.table(
            {
                "num_units": [block.num_rows],
                "num_rows": [len(rows)],
                "shard": pa.array([path], pa.string()),
                "statuses": pa.array([statuses], pa.list_(pa.string())),
                "faults": pa.array([sorted(faults)], pa.list_(pa.string())),
            }
        )


def start_ray(address: str | None = None) -> None:
    """Joins the Ray cluster at `address`, or starts one on this machine, quietly."""
    import logging
    import os

    import ray

    if ray.is_initialized():
        return
    # That it turned authentication on is no news to who only runs a command.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        # Where there is no dashboard, Ray Train seeks one for 12 s at the end of every training.
        os.environ.setdefault("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    ray.init(
        # "local", or a cluster that somebody left running on this machine would be joined.
        address=address or "local",
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        configure_logging=False,
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # What our code raises comes whole, with its class.
    context.raise_original_map_exception = True
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
