"""A stage on an endpoint, on a real Ray: what a stop keeps, and what the next try asks for."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from tasks.engine.cluster import logs_of_engines, start_ray
from tasks.engine.pool import EnginePool
from tasks.engine.requests import EngineConfig
from tasks.stage import StageInterrupted, StageWithheld
from tests.scripted_server import MODEL, ScriptedServer, completion, refusal, scripted
from tests.tasks.test_stage import Echo, run, units
from warehouse.catalog import connect
from warehouse.home import Home

pytestmark = pytest.mark.slow
KEY = "sk-very-secret-0123456789"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.setenv("TOWN_KEY", KEY)
    start_ray()
    with scripted(lambda body, index: completion("<think>by A1</think>yes")) as running:
        yield running


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[EnginePool]:
    pool = EnginePool(home=Home(str(tmp_path)))
    yield pool
    pool.close()


def endpoint(server: ScriptedServer, **options: Any) -> EngineConfig:
    replicas = options.pop("replicas", 1)
    asked = {"url": server.url, "key_variable": "TOWN_KEY", "retries": 1, **options}
    return EngineConfig.model_validate({"model": MODEL, "endpoint": asked, "replicas": replicas})


def committed(home: Path) -> set[str]:
    rows = connect(Home(str(home))).sql("select completion_id from completions_raw").fetchall()
    assert len(rows) == len(set(rows)), "every row once"
    return {row for (row,) in rows}


def asked(server: ScriptedServer) -> list[str]:
    return [body["messages"][0]["content"] for body in server.bodies]


@pytest.mark.parametrize("replicas", [1, 2])
def test_budget_in_the_middle_keeps_what_was_paid_for_and_asks_nothing_twice(
    replicas: int, server: ScriptedServer, pool: EnginePool, tmp_path: Path
) -> None:
    told = {"prompt_tokens": 10, "completion_tokens": 400, "total_tokens": 410}
    server.reset(lambda body, index: completion("<think>by A1</think>yes", usage=told))
    budget = {"tokens": 20_000}
    with pytest.raises(StageWithheld, match=r"endpoint\.budget\.tokens is 20000.*raise it"):
        run(
            Echo(),
            [units(60)],
            engines=pool,
            engine=endpoint(server, budget=budget, replicas=replicas),
            home=tmp_path,
            block_rows=8,
        )
    kept = committed(tmp_path)
    assert 0 < len(kept) < 60 and kept == set(asked(server)), "paid for and kept are the same"

    left = units(60).filter([name not in kept for name in units(60)["id"].to_pylist()])
    figures = run(
        Echo(),
        [left],
        engines=pool,
        engine=endpoint(server, budget={"tokens": 200_000}, replicas=replicas),
        home=tmp_path,
        block_rows=8,
    )
    assert len(committed(tmp_path)) == 60 == len(asked(server)) == len(set(asked(server)))
    assert figures.usage.requests == figures.num_rows == 60 - len(kept)
    assert figures.num_gpus == 0


def test_server_that_goes_away_is_worth_a_retry(
    server: ScriptedServer, pool: EnginePool, tmp_path: Path
) -> None:
    def script(body: dict[str, Any], index: int) -> Response:
        return refusal(503, "restarting") if index >= 20 else completion("<think>a</think>b")

    server.reset(script)
    with pytest.raises(StageInterrupted, match="answers 503 after all retries"):
        run(Echo(), [units(60)], engines=pool, engine=endpoint(server), home=tmp_path)
    assert len(committed(tmp_path)) == 20


def test_key_stands_in_no_log_and_no_row(
    server: ScriptedServer, pool: EnginePool, tmp_path: Path
) -> None:
    server.reset(lambda body, index: refusal(401, f"Incorrect API key provided: {KEY}"))
    with pytest.raises(StageWithheld, match=r"refuses the key \(401\)") as seen:
        run(Echo(), [units(8)], engines=pool, engine=endpoint(server), home=tmp_path)
    assert KEY not in repr(seen.value) and f"Bearer {KEY}" in server.keys
    for folder in (Path(logs_of_engines()), tmp_path):
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert not [file for file in files if KEY.encode() in file.read_bytes()]
