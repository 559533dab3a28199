"""The stage on a real Ray, with a scripted engine in place of vLLM."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tasks.engine.cluster import start_ray
from tasks.engine.pool import EnginePool
from tasks.engine.requests import (
    Engine,
    EngineConfig,
    EngineError,
    Request,
    Sample,
    ScriptedEngine,
    failed,
)
from tasks.stage import (
    NoReasoning,
    Progress,
    Stage,
    StageConfig,
    StageError,
    StageFigures,
    StageInterrupted,
    blocks,
)
from tests.echo import Echo, Word
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.shards import list_shards
from warehouse.tables import COMPLETIONS, Completion

ENGINE = EngineConfig(model="scripted", use_gpu=False)


def units(count: int, *, specs: int = 1) -> pa.Table:
    return pa.table(
        {
            "id": [f"{i:04}" for i in range(count)],
            "block_key": [f"s{i * specs // count}" for i in range(count)],
        }
    )


def run(
    work: Echo,
    waves: Sequence[pa.Table],
    *,
    engines: EnginePool,
    home: Path,
    engine: EngineConfig = ENGINE,
    progress: Progress = lambda num_units: None,
    **config: int,
) -> StageFigures:
    """Does all the work of a stage and returns its figures."""
    stage = Stage(work, engines, engine, Home(str(home)), StageConfig(**config))
    stage.run(waves, progress)
    return stage.figures


def wait_until(condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the state never came"
        time.sleep(0.05)


def reply(request: Request, index: int) -> str:
    return f"<think>about {request.messages[0]['content']}</think>done"


class Stuck(ScriptedEngine):
    """An engine that answers a number of calls, and none after them."""

    def __init__(self, num_answered: int) -> None:
        super().__init__(reply)
        self.num_answered = num_answered

    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        if self.num_answered == 0:
            self.requests += requests
            await asyncio.Event().wait()
        self.num_answered -= 1
        return await super().generate(requests)


class Mortal(ScriptedEngine):
    """An engine whose process ends at the word `poison`."""

    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        if any("poison" in request.messages[0]["content"] for request in requests):
            os._exit(1)
        return await super().generate(requests)


class Faulty(ScriptedEngine):
    """An engine that serves no request."""

    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        return [[failed("error", "out of memory")] * request.num_samples for request in requests]


@pytest.fixture(scope="module")
def ray() -> Any:
    import ray

    start_ray()
    return ray


class Pools:
    """Pools of scripted engines, closed together."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        self.pools: list[EnginePool] = []

    def of(
        self,
        *engines: tuple[type[ScriptedEngine], Any],
        config: EngineConfig = ENGINE,
        **options: Any,
    ) -> EnginePool:
        """Returns a pool of one actor for each class and its argument."""
        defaults = {"num_cpus": 0, "max_concurrency": 100}
        pool = EnginePool()
        pool.adopt(
            config,
            [
                self.ray.remote(engine).options(**(defaults | options)).remote(argument)
                for engine, argument in engines
            ],
        )
        self.pools.append(pool)
        return pool

    def close(self) -> None:
        for pool in self.pools:
            pool.close()


@pytest.fixture
def pools(ray: Any) -> Iterator[Pools]:
    pools = Pools(ray)
    yield pools
    pools.close()


@pytest.fixture(scope="module")
def engines(ray: Any) -> Iterator[EnginePool]:
    """Two engines that answer, shared: a test whose stage fails needs others, for a stage that
    fails before its first block ends its engines."""
    pools = Pools(ray)
    yield pools.of((ScriptedEngine, reply), (ScriptedEngine, reply))
    pools.close()


def test_blocks_hold_one_spec_and_no_more_rows_than_the_limit() -> None:
    cut = list(blocks(units(20, specs=3), block_rows=4))
    assert sum(block.num_rows for block in cut) == 20
    assert all(block.num_rows <= 4 for block in cut)
    assert all(len(set(block["block_key"].to_pylist())) == 1 for block in cut)


def test_nothing_to_do_starts_no_engine(tmp_path: Path) -> None:
    engines = EnginePool()
    figures = run(Echo(), [units(0)], engines=engines, home=tmp_path)
    assert figures.num_units == 0 and engines.num_started == 0


@pytest.mark.slow
def test_a_cluster_of_a_run_is_reached_from_this_machine_alone(engines: EnginePool) -> None:
    import psutil

    sockets = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            sockets += process.net_connections("inet")
    listening = {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
    assert listening and listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.slow
def test_every_unit_is_committed_once_and_every_shard_is_logged_in_a_line(
    engines: EnginePool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reported: list[int] = []
    figures = run(
        Echo(),
        [units(50, specs=3), units(0)],
        engines=engines,
        home=tmp_path,
        progress=reported.append,
        block_rows=4,
    )
    home = Home(str(tmp_path))
    query = "SELECT completion_id FROM completions_raw ORDER BY 1"
    committed = [row[0] for row in connect(home).execute(query).fetchall()]
    assert committed == units(50)["id"].to_pylist()
    assert sum(reported) == figures.num_units == figures.num_rows == 50
    assert figures.statuses == {"ok": 50}
    assert (figures + figures).num_rows == 100
    lines = [record.message for record in caplog.records if record.name == "precept.stage"]
    shards = [Path(path).stem for path in list_shards(home, COMPLETIONS)]
    assert sorted(line.split("shard=")[1].split()[0] for line in lines) == shards
    assert all("ok=" in line and "run=r" in line for line in lines)


@pytest.mark.slow
def test_requests_of_a_lost_engine_are_answered_by_another(
    ray: Any, pools: Pools, tmp_path: Path
) -> None:
    engines = pools.of((ScriptedEngine, reply), (Stuck, 0))
    [_, stuck] = engines._handles

    def lose() -> None:
        # Killed while it holds requests, which may be all there are if the other one starts later.
        # It does not restart, as if its node were gone.
        wait_until(lambda: ray.get(stuck.usage.remote()).output_tokens > 0, seconds=300)
        ray.kill(stuck)

    loser = threading.Thread(target=lose)
    loser.start()
    figures = run(
        Echo(),
        [units(60)],
        engines=engines,
        home=tmp_path,
        block_rows=2,
        blocks_in_flight=4,
    )
    loser.join()
    assert figures.statuses == {"ok": 60}


@pytest.mark.slow
def test_rows_of_engines_that_are_gone_for_good_are_missing_and_not_errors(
    ray: Any, pools: Pools, tmp_path: Path
) -> None:
    engines = pools.of((Stuck, 5))

    def committed(count: int) -> None:
        ray.kill(engines._handles[0])

    with pytest.raises(StageInterrupted, match="no engine is left"):
        run(
            Echo(),
            [units(200)],
            engines=engines,
            home=tmp_path,
            progress=committed,
            block_rows=1,
            blocks_in_flight=2,
        )
    statuses = connect(Home(str(tmp_path))).sql("SELECT DISTINCT status FROM completions_raw")
    assert statuses.fetchall() == [("ok",)]


@pytest.mark.slow
def test_shard_that_cannot_be_written_stops_the_stage_for_good_in_one_sentence(
    pools: Pools, tmp_path: Path
) -> None:
    (tmp_path / "completions").write_text("a file where the folder should be")
    with pytest.raises(StageError, match="run the same command again") as caught:
        run(Echo(), [units(8)], engines=pools.of((ScriptedEngine, reply)), home=tmp_path)
    assert type(caught.value) is StageError
    assert "\n" not in str(caught.value) and "FileExistsError" in str(caught.value)


@pytest.mark.slow
def test_store_that_cannot_be_reached_interrupts_the_stage(pools: Pools, tmp_path: Path) -> None:
    class Disconnected(Echo):
        async def make(self, units: Sequence[Word], engine: Engine) -> list[Completion]:
            raise ConnectionResetError("the store hung up")

    with pytest.raises(StageInterrupted, match="the store hung up"):
        run(Disconnected(), [units(8)], engines=pools.of((ScriptedEngine, reply)), home=tmp_path)


@pytest.mark.slow
def test_row_that_kills_every_engine_is_an_error_and_the_others_are_made(
    pools: Pools, tmp_path: Path
) -> None:
    engines = pools.of((Mortal, reply), max_restarts=-1)
    wave = pa.table({"id": [*(f"{i}" for i in range(12)), "poison"], "block_key": ["s"] * 13})
    figures = run(Echo(), [wave], engines=engines, home=tmp_path, block_rows=1, blocks_in_flight=8)
    assert figures.statuses == {"ok": 12, "error": 1}


@pytest.mark.slow
def test_stage_whose_rows_are_mostly_errors_ends_early(pools: Pools, tmp_path: Path) -> None:
    engines = pools.of((Faulty, reply))
    with pytest.raises(StageError, match="are engine errors"):
        run(Echo(), [units(300)], engines=engines, home=tmp_path, block_rows=60)


def answer_only(request: Request, index: int) -> str:
    return "You may row."


def one_in_a_hundred(request: Request, index: int) -> str:
    return reply(request, index) if request.messages[0]["content"] == "0000" else "You may row."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "reasons", "stops"),
    [(answer_only, True, True), (answer_only, False, False), (one_in_a_hundred, True, False)],
)
def test_stage_of_a_model_without_reasoning_ends_early(
    pools: Pools, tmp_path: Path, script: Any, reasons: bool, stops: bool
) -> None:
    engine = ENGINE.model_copy(update={"reasons": reasons})
    engines = pools.of((ScriptedEngine, script), config=engine)
    work = [units(300)]
    if not stops:
        figures = run(Echo(), work, engines=engines, engine=engine, home=tmp_path, block_rows=20)
        assert figures.num_rows == 300
        return
    with pytest.raises(NoReasoning, match=r'between <think> and </think>; .* reasons = "prompted"'):
        run(Echo(), work, engines=engines, engine=engine, home=tmp_path, block_rows=20)
    # What was made is kept, and the next run does not make it again.
    kept = connect(Home(str(tmp_path))).sql("select status from completions").fetchall()
    assert len(kept) >= 100


@pytest.mark.slow
def test_model_that_cannot_be_loaded_is_named_with_the_remedy(ray: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    config = EngineConfig(model=str(tmp_path), use_gpu=False, num_cpus=0)
    with pytest.raises(EngineError, match=r"no engine for .*check engine\.model"):
        run(Echo(), [units(4)], engines=EnginePool(), engine=config, home=tmp_path)
    assert list_shards(Home(str(tmp_path)), COMPLETIONS) == []
