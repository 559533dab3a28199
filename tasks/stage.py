"""Pending rows → Ray Data actor pool → committed shards.

The only module that knows how work is spread. A stage takes units of work, which a query found
missing, cuts them into small blocks of one category, and lets Ray Data keep several blocks in
flight for every engine. The actor that made a block's rows commits them as one shard before it
reports, so the driver sees only counts; rows that a kill prevented are missing for the next query.
"""

import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol

import duckdb
import pyarrow as pa
from pydantic import Field

from tasks import Config
from tasks.engine.families import marks_of
from tasks.engine.faults import causes, message_of, root_cause
from tasks.engine.pool import EnginePool
from tasks.engine.replicas import Replicas
from tasks.engine.requests import UNREACHABLE, WITHHELD, Engine, EngineConfig
from tasks.engine.usage import Usage
from tasks.meters import Meter
from warehouse.catalog import Pending
from warehouse.home import Home, may_pass
from warehouse.shards import write_shard
from warehouse.tables import COMPLETIONS, JUDGEMENTS, Table

_log = logging.getLogger("precept.stage")
# Without a level of its own the logger would take the root's, which shows warnings only.
logging.getLogger("precept").setLevel(logging.INFO)


_REASONED = (COMPLETIONS, JUDGEMENTS)
"""Tables whose rows need a model that reasons; evaluations may compare others."""


class StageConfig(Config):
    """Blocks and retries of a stage."""

    block_rows: int = Field(16, gt=0)
    """Units in one block; a block is committed as one shard."""
    blocks_in_flight: int = Field(8, gt=0)
    """Concurrent blocks per engine. Times the units and samples of a block it should be a little
    more than the engine's max_num_seqs."""
    wave_rows: int = Field(100_000, gt=0)
    """Units that are planned and held in memory at a time."""
    retries: int = Field(1, ge=0)
    """Retries of a row within a run, after an engine error or an unreadable verdict."""
    error_attempts: int = Field(5, gt=0)
    """Attempts, over all runs, at a row that is an engine error or at a category that could not be
    read; each later run makes one more."""
    max_error_share: float = Field(0.5, gt=0, le=1)
    """Share of engine errors among the first 100 or more rows above which a stage stops."""

    @property
    def one_by_one(self) -> "StageConfig":
        """The same with one unit per block."""
        return self.model_copy(update={"block_rows": 1})


class StageError(RuntimeError):
    """A stage that cannot go on; what it committed is kept."""


class NoReasoning(StageError):
    """A stage whose model gives no reasoning that could be told from its answers."""


class StageInterrupted(StageError):
    """A stage that a node, the network or a store ended. A retry can go on."""


class StageWithheld(StageError, ValueError):
    """A stage that an endpoint was not asked all of, by its budget or a setting of the recipe."""


class Work(Protocol):
    """A stage's work: a verb that is pickled to the actors, and holds no model.

    It says which rows are missing and makes them: `run_stage(run, work, engine)` is all that a
    flow says.
    """

    @property
    def name(self) -> str:
        """The verb in progress bars and figures, such as `generate`."""
        ...

    @property
    def table(self) -> Table:
        """The table that the rows land in."""
        ...

    @property
    def run_id(self) -> str: ...

    @property
    def unit(self) -> type[Any]:
        """The frozen row type of the units: its fields are the columns that `pending` reads, and
        `block_key` is one of them. Units of one block share it."""
        ...

    def pending(self, connection: duckdb.DuckDBPyConnection) -> Pending:
        """Returns the units that the warehouse lacks, ordered by `block_key`."""
        ...

    async def make(self, units: Sequence[Any], engine: Engine) -> list[Any]:
        """Returns the rows that these units lack."""
        ...


class FunctionWork(Work, Protocol):
    """Work that a function of the recipe can do in place of a model."""

    def make_by_function(self, units: Sequence[Any]) -> list[Any]:
        """Returns the rows that these units lack."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFigures:
    """Counts, seconds and usage of a stage."""

    table: str = ""
    num_units: int = 0
    num_rows: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    """Rows by status."""
    seconds: float = 0.0
    """Duration without the time that engines took to load."""
    tail_seconds: float = 0.0
    """Time that the last 5 % of the units took."""
    num_gpus: float = 0
    usage: Usage = field(default_factory=Usage)

    @property
    def gpu_seconds(self) -> float:
        """GPUs times seconds."""
        return self.seconds * self.num_gpus

    @property
    def tokens_per_second(self) -> float:
        """Output tokens per second."""
        return self.usage.output_tokens / max(0.01, self.seconds)

    def __add__(self, other: "StageFigures") -> "StageFigures":
        """Returns two passes of a stage as one."""
        return StageFigures(
            table=self.table or other.table,
            num_units=self.num_units + other.num_units,
            num_rows=self.num_rows + other.num_rows,
            statuses=dict(Counter(self.statuses) + Counter(other.statuses)),
            seconds=round(self.seconds + other.seconds, 2),
            tail_seconds=round(max(self.tail_seconds, other.tail_seconds), 2),
            num_gpus=max(self.num_gpus, other.num_gpus),
            usage=self.usage + other.usage,
        )


@dataclass(frozen=True, slots=True)
class Committed:
    """One block whose rows are in the warehouse."""

    num_units: int
    num_rows: int
    shard: str | None
    """Path of the shard; None if the block came to no row."""
    statuses: Mapping[str, int]
    """Rows by status."""
    faults: Sequence[str]
    """Reasons of the rows that are errors, each once."""
    withheld: str | None = None
    """One of `WITHHELD`, if an endpoint was not asked for some of the rows."""
    withheld_because: str | None = None


Progress = Callable[[int], None]
"""Takes the number of units committed since the last call."""


@dataclass(slots=True)
class Stage:
    """Work, and the engines, warehouse and configuration that it is done with."""

    work: Work
    pool: EnginePool
    engine: EngineConfig
    home: Home
    config: StageConfig
    _statuses: Counter[str] = field(default_factory=Counter, init=False)
    _num_rows: int = field(default=0, init=False)
    _committed_at: list[tuple[float, int]] = field(default_factory=list, init=False)
    """Time and number of units of each commit."""
    _began: float | None = field(default=None, init=False)
    _ended: float | None = field(default=None, init=False)
    _usage_before: Usage | None = field(default=None, init=False)
    _usage: Usage = field(default_factory=Usage, init=False)

    def run(self, waves: Iterable[pa.Table], progress: Progress = lambda num_units: None) -> None:
        """Does all the work in `waves`: tables of units, in the order wanted.

        Starts no engine if there is nothing to do. Logs a line per shard. `figures` tells what was
        done, also after a fault. Raises StageError if shards cannot be written or most rows are
        engine errors, NoReasoning if the model gives none, StageWithheld if an endpoint may not be
        asked further, and StageInterrupted if a retry may help.
        """
        meter: Meter | None = None
        try:
            for wave in waves:
                if wave.num_rows == 0:
                    continue
                withheld: Committed | None = None
                for committed in self._make(wave):
                    if committed.withheld:
                        # Not at once: blocks in flight have replies that are paid for.
                        withheld = withheld or committed
                    meter = meter or Meter.of_cluster()
                    self._count(committed, meter)
                    progress(committed.num_units)
                    self._stop_if_failing()
                    self._stop_if_unreasoned()
                if withheld is not None:
                    raise self._stopped_by(withheld)
        finally:
            if self._usage_before is not None:
                self._ended = time.monotonic()
                self._usage = self.pool.usage().since(self._usage_before)

    @property
    def figures(self) -> StageFigures:
        """Counts, seconds and usage so far."""
        began, ended = self._began, self._ended
        return StageFigures(
            table=self.work.table.name,
            num_units=sum(count for _, count in self._committed_at),
            num_rows=self._num_rows,
            statuses=dict(self._statuses),
            seconds=0.0 if began is None or ended is None else round(ended - began, 2),
            tail_seconds=round(_tail(self._committed_at), 2),
            num_gpus=self.engine.num_gpus,
            usage=self._usage,
        )

    def _make(self, wave: pa.Table) -> Iterator[Committed]:
        """Makes the rows of one wave; yields each block as it is committed."""
        handles = self.pool.start_for(self.engine)
        # Engines that load have used nothing; the first that is there is asked before the others.
        before = Usage() if self.pool.is_loading else self.pool.usage()
        starter = ThreadPoolExecutor(1)
        blocks = self._spread(wave, handles)
        # Asks for the first block now, so that the workers start while the models load.
        first = starter.submit(next, blocks, None)
        try:
            self.pool.wait()
            self._usage_before = self._usage_before or before
            self._began = self._began or time.monotonic()
            committed = first.result()
        except BaseException as error:
            # The starter thread may be waiting for these engines: end them, or it never ends. A
            # process that is to end does not wait for what loads.
            self.pool.close()
            starter.shutdown(wait=isinstance(error, Exception))
            raise
        starter.shutdown()
        yield from itertools.chain([committed] if committed else [], blocks)

    def _spread(self, wave: pa.Table, handles: Sequence[Any]) -> Iterator[Committed]:
        """Runs one wave through Ray Data."""
        import ray
        import ray.data
        from ray.exceptions import RayError

        packed = [
            {"block": _pack(block)} for block in blocks(wave, block_rows=self.config.block_rows)
        ]
        in_flight = self.config.blocks_in_flight
        # from_items and num_cpus=0: engines may hold every processor, and Ray Data would wait for
        # one of its own for ever.
        committed = ray.data.from_items(packed, override_num_blocks=len(packed)).map_batches(
            Worker,
            fn_constructor_kwargs={
                "work": self.work,
                "handles": list(handles),
                "home": self.home,
            },
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
                    yield Committed(**{**row, "statuses": Counter(row["statuses"])})
        except (RayError, OSError) as error:
            raise self._fault(error) from error

    def _fault(self, error: BaseException) -> StageError:
        """Returns what a fault of Ray Data means for the stage."""
        cause = root_cause(error)
        chain = list(causes(error))
        passes = isinstance(chain[-1], _lost_by_ray()) or any(map(may_pass, chain))
        kind = StageInterrupted if passes else StageError
        return kind(
            f"stage {self.work.table.name} stopped: {type(cause).__name__}: {message_of(cause)}; "
            "what was committed is kept, mend the cause and run the same command again"
        )

    def _stopped_by(self, withheld: Committed) -> StageError:
        """Returns what it means that an endpoint was not asked for some of the rows."""
        kind = StageInterrupted if withheld.withheld == UNREACHABLE else StageWithheld
        return kind(
            f"stage {self.work.table.name} stopped: {withheld.withheld_because}; what was "
            "committed is kept, and the same command goes on from there"
        )

    def _count(self, committed: Committed, meter: Meter) -> None:
        """Adds a block to the figures, logs it in one line and tells Prometheus."""
        self._num_rows += committed.num_rows
        self._statuses.update(committed.statuses)
        self._committed_at.append((time.monotonic(), committed.num_units))
        table, run_id = self.work.table.name, self.work.run_id
        counts = " ".join(f"{name}={count}" for name, count in sorted(committed.statuses.items()))
        shard = PurePosixPath(committed.shard or "none").stem
        _log.info(
            f"committed table={table} shard={shard} rows={committed.num_rows} {counts} run={run_id}"
        )
        for fault in committed.faults:
            _log.warning(f"fault table={table} shard={shard} run={run_id}: {fault}")
        for status, count in committed.statuses.items():
            meter.add("precept_rows", count, table=table, status=status)

    def _stop_if_failing(self) -> None:
        """Raises StageError if too large a share of the rows are engine errors."""
        num_errors = self._statuses["error"]
        if self._num_rows >= 100 and num_errors > self.config.max_error_share * self._num_rows:
            raise StageError(
                f"{num_errors} of the first {self._num_rows} rows are engine errors; read one with "
                f"precept sql \"select reason from {self.work.table.name} where status = 'error' "
                'limit 1"'
            )

    def _stop_if_unreasoned(self) -> None:
        """Raises NoReasoning if no reply of a generator or judge has marks around its reasoning."""
        counts = self._statuses
        num_open, num_cut = counts["unclosed"], counts["truncated"]
        num_replies = self._num_rows - counts["error"] - counts["too_long"]
        # Of a reply that is cut short nobody knows: most must have ended by themselves.
        is_hopeless = num_replies >= 100 and num_open > num_cut >= num_replies - num_open
        if not is_hopeless or not self.engine.reasons or self.work.table not in _REASONED:
            return
        marks = marks_of(self.engine.reasoning_parser)
        raise NoReasoning(
            f"none of the first {num_replies} replies of {self.engine.model} has reasoning between "
            f"{marks.opening.strip()} and {marks.closing}; set its engine's reasoning_parser to "
            'that of the model\'s family, or reasons = "prompted" if it has none of its own'
        )


def _tail(committed_at: Sequence[tuple[float, int]]) -> float:
    """Returns the seconds from 95 % of the units to the last one."""
    total = sum(count for _, count in committed_at)
    so_far = 0
    for when, count in committed_at:
        so_far += count
        if so_far >= 0.95 * total:
            return committed_at[-1][0] - when
    return 0.0


def blocks(wave: pa.Table, *, block_rows: int) -> Iterator[pa.Table]:
    """Cuts units into blocks of at most `block_rows` that share a `block_key`."""
    start = 0
    keys = wave.column("block_key").to_pylist()
    for end in range(1, len(keys) + 1):
        is_full = end - start == block_rows
        if end == len(keys) or is_full or keys[end] != keys[start]:
            yield wave.slice(start, end - start)
            start = end


def _pack(block: pa.Table) -> bytes:
    """Returns a table in Arrow's stream format."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, block.schema) as stream:
        stream.write_table(block)
    return bytes(sink.getvalue().to_pybytes())


def _lost_by_ray() -> tuple[type[Exception], ...]:
    """Returns the exceptions by which Ray says that a node or a process is gone."""
    from ray import exceptions as ray

    return (
        ray.RayActorError,
        ray.WorkerCrashedError,
        ray.NodeDiedError,
        ray.ObjectLostError,
        ray.OutOfMemoryError,
        ray.RaySystemError,
    )


class Worker:
    """One actor of the pool: asks engines for what its blocks lack and commits the rows."""

    def __init__(self, work: Work, handles: Sequence[Any], home: Home) -> None:
        self.work = work
        self.home = home
        self.engine = Replicas(handles)

    async def __call__(self, packed: pa.Table) -> Any:
        block = pa.ipc.open_stream(packed.column("block")[0].as_py()).read_all()
        units = [self.work.unit(**row) for row in block.to_pylist()]
        made = await self.work.make(units, self.engine)
        rows = [row for row in made if row.status not in WITHHELD]
        withheld = next((row for row in made if row.status in WITHHELD), None)
        path = write_shard(self.home, self.work.table, rows)
        statuses = [row.status for row in rows]
        reasons = {str(getattr(row, "reason", None)) for row in rows if row.status == "error"}
        faults = {reason.splitlines()[0] for reason in reasons if reason}
        yield pa.table(
            {
                "num_units": [block.num_rows if rows or not made else 0],
                "num_rows": [len(rows)],
                "shard": pa.array([path], pa.string()),
                "statuses": pa.array([statuses], pa.list_(pa.string())),
                "faults": pa.array([sorted(faults)], pa.list_(pa.string())),
                "withheld": pa.array([withheld and withheld.status], pa.string()),
                "withheld_because": pa.array([withheld and withheld.reason], pa.string()),
            }
        )
