"""The stage on a real Ray, with a scripted engine in place of vLLM."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    Sampling,
    ScriptedEngine,
)
from tasks.stage import (
    Progress,
    Stage,
    StageConfig,
    StageError,
    StageFigures,
    StageInterrupted,
    blocks,
)
from tests.rows import completion
from warehouse.catalog import Pending, connect
from warehouse.home import Home
from warehouse.shards import list_shards
from warehouse.tables import COMPLETIONS, Completion, Table

ENGINE = EngineConfig(model="scripted", use_gpu=False)


@dataclass(frozen=True)
class Word:
    """A unit: something to say."""

    id: str
    block_key: str


@dataclass(frozen=True)
class Echo:
    """Work that makes a row per unit, with the status of what the engine gave."""

    run_id: str = "r"
    name: str = "echo"
    table: Table = COMPLETIONS
    unit: type[Word] = Word

    def pending(self, connection: Any) -> Pending:
        raise NotImplementedError  # the tests give units of their own

    async def make(self, units: Sequence[Word], engine: Engine) -> list[Completion]:
        requests = [Request([{"role": "user", "content": u.id}], 1, Sampling()) for u in units]
        outputs = await engine.generate(requests)
        return [
            completion(unit.id, status=sample.status, reason=sample.reason)
            for unit, [sample] in zip(units, outputs, strict=True)
        ]


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
    engine: EngineConfig,
    home: Home,
    config: StageConfig,
    progress: Progress = lambda num_units: None,
) -> StageFigures:
    """Does all the work; returns what was done."""
    stage = Stage(work, engines, engine, home, config)
    stage.run(waves, progress)
    return stage.figures


@pytest.fixture(scope="module")
def ray() -> Any:
    import ray

    start_ray()
    return ray


@pytest.fixture
def engines(ray: Any) -> Iterator[EnginePool]:
    def answer(request: Request, index: int) -> str:
        return f"<think>about {request.messages[0]['content']}</think>done"

    engines = EnginePool()
    actor = ray.remote(ScriptedEngine).options(num_cpus=0, max_concurrency=10)
    engines.adopt(ENGINE, [actor.remote(answer), actor.remote(answer)])
    yield engines
    engines.close()


def test_blocks_hold_one_spec_and_no_more_rows_than_asked() -> None:
    cut = list(blocks(units(20, specs=3), block_rows=4))
    assert sum(block.num_rows for block in cut) == 20
    assert all(block.num_rows <= 4 for block in cut)
    assert all(len(set(block["block_key"].to_pylist())) == 1 for block in cut)


@pytest.mark.slow
def test_a_cluster_of_a_run_is_reached_from_this_machine_alone(engines: EnginePool) -> None:
    import psutil

    family = [one for one in psutil.Process().children(recursive=True) if one.is_running()]
    sockets = [socket for one in family for socket in one.net_connections("inet")]
    listening = {socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN}
    assert listening and listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.slow
def test_every_unit_is_committed_once_by_whatever_engine_and_told_in_a_line(
    engines: EnginePool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = Home(str(tmp_path))
    told: list[int] = []
    report = run(
        Echo(),
        [units(50, specs=3), units(0)],
        engines=engines,
        engine=ENGINE,
        home=home,
        config=StageConfig(block_rows=4),
        progress=told.append,
    )
    query = "SELECT completion_id FROM completions_raw ORDER BY 1"
    found = [row[0] for row in connect(home).execute(query).fetchall()]
    assert found == units(50)["id"].to_pylist()
    assert sum(told) == report.num_units == report.num_rows == 50
    assert report.statuses == {"ok": 50}
    assert (report + report).num_rows == 100
    lines = [record.message for record in caplog.records if record.name == "precept.stage"]
    shards = [Path(path).stem for path in list_shards(home, COMPLETIONS)]
    assert sorted(line.split("shard=")[1].split()[0] for line in lines) == shards
    assert all("ok=" in line and "run=r" in line for line in lines)


@pytest.mark.slow
def test_what_a_lost_engine_was_asked_another_one_answers(ray: Any, tmp_path: Path) -> None:
    class Slow(ScriptedEngine):
        async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
            await asyncio.sleep(0.5)
            return await super().generate(requests)

    engines = EnginePool()
    actor = ray.remote(Slow).options(num_cpus=0, max_concurrency=10)
    kept, lost = (actor.remote(lambda request, index: "<think>a</think>b") for _ in range(2))
    engines.adopt(ENGINE, [kept, lost])
    told: list[int] = []

    def committed(count: int) -> None:
        if not told:
            # As where its node is gone: nothing starts it anew.
            ray.kill(lost)
        told.append(count)

    report = run(
        Echo(),
        [units(60)],
        engines=engines,
        engine=ENGINE,
        home=Home(str(tmp_path)),
        config=StageConfig(block_rows=2, blocks_in_flight=4),
        progress=committed,
    )
    engines.close()
    assert report.statuses == {"ok": 60}


@pytest.mark.slow
def test_rows_of_engines_that_are_gone_for_good_are_missing_and_not_errors(
    ray: Any, tmp_path: Path
) -> None:
    engines = EnginePool()
    gone = ray.remote(ScriptedEngine).options(num_cpus=0)
    engines.adopt(ENGINE, [gone.remote(lambda request, index: "<think>a</think>b")])

    def committed(count: int) -> None:
        ray.kill(engines._handles[0])

    with pytest.raises(StageInterrupted, match="no engine is left"):
        run(
            Echo(),
            [units(200)],
            engines=engines,
            engine=ENGINE,
            home=Home(str(tmp_path)),
            config=StageConfig(block_rows=1, blocks_in_flight=2),
            progress=committed,
        )
    statuses = connect(Home(str(tmp_path))).sql("SELECT DISTINCT status FROM completions_raw")
    assert statuses.fetchall() == [("ok",)]


@pytest.mark.slow
def test_nothing_to_do_starts_no_engine(tmp_path: Path) -> None:
    engines = EnginePool()
    report = run(
        Echo(),
        [units(0)],
        engines=engines,
        engine=ENGINE,
        home=Home(str(tmp_path)),
        config=StageConfig(),
    )
    assert report.num_units == 0 and engines.num_started == 0


@pytest.mark.slow
def test_shard_that_cannot_be_written_stops_the_stage_for_good_in_one_sentence(
    engines: EnginePool, tmp_path: Path
) -> None:
    (tmp_path / "completions").write_text("a file where the folder should be")
    with pytest.raises(StageError, match="run the same command again") as caught:
        run(
            Echo(),
            [units(8)],
            engines=engines,
            engine=ENGINE,
            home=Home(str(tmp_path)),
            config=StageConfig(),
        )
    assert type(caught.value) is StageError
    assert "\n" not in str(caught.value) and "FileExistsError" in str(caught.value)


@pytest.mark.slow
def test_a_store_that_is_away_interrupts_the_stage(engines: EnginePool, tmp_path: Path) -> None:
    class Away(Echo):
        async def make(self, units: Sequence[Word], engine: Engine) -> list[Completion]:
            raise ConnectionResetError("the store hung up")

    with pytest.raises(StageInterrupted, match="the store hung up"):
        run(
            Away(),
            [units(8)],
            engines=engines,
            engine=ENGINE,
            home=Home(str(tmp_path)),
            config=StageConfig(),
        )


class Mortal(ScriptedEngine):
    """An engine that dies of one word."""

    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        if any("poison" in request.messages[0]["content"] for request in requests):
            os._exit(1)
        return await super().generate(requests)


@pytest.mark.slow
def test_rows_that_kill_every_engine_are_error_rows_and_the_others_are_made(
    ray: Any, tmp_path: Path
) -> None:
    engines = EnginePool()
    mortal = ray.remote(Mortal).options(num_cpus=0, max_restarts=-1, max_concurrency=10)
    engines.adopt(ENGINE, [mortal.remote(lambda request, index: "<think>a</think>b")])
    wave = pa.table({"id": [*(f"{i}" for i in range(12)), "poison"], "block_key": ["s"] * 13})
    report = run(
        Echo(),
        [wave],
        engines=engines,
        engine=ENGINE,
        home=Home(str(tmp_path)),
        config=StageConfig(block_rows=1, blocks_in_flight=8),
    )
    engines.close()
    assert report.statuses == {"ok": 12, "error": 1}


@pytest.mark.slow
def test_stage_whose_rows_are_mostly_errors_ends_early(ray: Any, tmp_path: Path) -> None:
    engines = EnginePool()
    mortal = ray.remote(Mortal).options(num_cpus=0, max_restarts=-1)
    engines.adopt(ENGINE, [mortal.remote(lambda request, index: "")])
    wave = pa.table({"id": [f"poison {i}" for i in range(300)], "block_key": ["s"] * 300})
    with pytest.raises(StageError, match="are engine errors"):
        run(
            Echo(),
            [wave],
            engines=engines,
            engine=ENGINE,
            home=Home(str(tmp_path)),
            config=StageConfig(block_rows=60, blocks_in_flight=1),
        )
    engines.close()


@pytest.mark.slow
def test_model_that_cannot_be_loaded_is_named_with_the_remedy(ray: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    engines = EnginePool()
    config = EngineConfig(model=str(tmp_path), use_gpu=False, num_cpus=0)
    with pytest.raises(EngineError, match=r"no engine for .*check engine\.model"):
        run(
            Echo(),
            [units(4)],
            engines=engines,
            engine=config,
            home=Home(str(tmp_path)),
            config=StageConfig(),
        )
    assert list_shards(Home(str(tmp_path)), COMPLETIONS) == []
