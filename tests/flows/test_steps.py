"""Tasks as Prefect sees them: what is tried again, what is an asset, who may write to a store."""

import errno
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks.engine.requests import EngineError
from tasks.stage import StageError, StageInterrupted
from tasks.training.trainer import TrainError, WorkersLost
from warehouse.home import Home


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def answered(status: int) -> Exception:
    request = httpx.Request("POST", "http://127.0.0.1")
    return httpx.HTTPStatusError("", request=request, response=httpx.Response(status))


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (StageInterrupted("a node died"), True),
        (WorkersLost("killed"), True),
        (ConnectionResetError("the store hung up"), True),
        (caused(ValueError("no such data set"), TimeoutError("the hub")), True),
        (httpx.ConnectError("Prefect's server restarts"), True),
        (answered(503), True),
        (answered(409), False),
        (StageError("most rows are errors"), False),
        (TrainError("the weights differ"), False),
        (EngineError("no engine for model"), False),
        (OSError(errno.ENOSPC, "disk full"), False),
        (PermissionError("not yours"), False),
        (FileNotFoundError("no such bucket"), False),
        (ValueError("bad recipe"), False),
    ],
    ids=repr,
)
def test_only_what_may_pass_is_tried_again(error: Exception, again: bool) -> None:
    from prefect.states import Failed

    from flows.steps import is_transient

    assert is_transient(None, None, Failed(data=error)) is again


def test_progress_is_told_in_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from flows.steps import progress_bar

    shares: list[float] = []
    with progress_bar("judge", 3, publish=shares.append, unit="texts") as advance:
        advance(2)
        advance(1)
    assert capsys.readouterr().err == "judge: 3 texts to do\njudge: 3 of 3 done\n"
    assert shares[-1] == 100.0


class Run:
    """As much of a run as a task needs to be told apart."""

    id = "r"

    def __init__(self, home: Home) -> None:
        self.home = home


@pytest.fixture
def run(disk: Home) -> Any:
    return Run(disk)


@pytest.mark.slow
def test_a_stage_that_was_interrupted_is_tried_again_and_its_table_is_an_asset(run: Any) -> None:
    from prefect import flow

    from flows.steps import asset_key, describe_asset, makes

    tries = []

    @makes("judge", "judgements", of=("completions",), retry_delay_seconds=0)
    def judge(run: Any) -> str:
        tries.append(1)
        if len(tries) < 3:
            raise StageInterrupted("a node died")
        describe_asset(run, "judgements", {"rows": 7})
        return "made"

    @flow
    def night() -> str:
        return judge(run)

    assert night() == "made"
    assert len(tries) == 3
    made = asset_event(asset_key(run.home, "judgements"))
    assert made["payload"] == {"run_id": "r", "rows": 7}
    sources = [one["prefect.resource.id"] for one in made["related"]]
    assert asset_key(run.home, "completions") in sources


def asset_event(key: str) -> dict[str, Any]:
    """The event of a table's last materialization; events arrive a little later."""
    from prefect.client.orchestration import get_client

    wanted = {
        "event": {"name": ["prefect.asset.materialization.succeeded"]},
        "resource": {"id": [key]},
    }
    deadline = time.monotonic() + 30
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            answer = client.request("POST", "/events/filter", json={"filter": wanted})
            if found := answer.json()["events"]:
                return dict(found[0])
            time.sleep(0.5)
    raise AssertionError(f"no event of {key}")


@pytest.mark.slow
def test_a_stage_that_cannot_go_on_is_not_tried_again(run: Any) -> None:
    from prefect import flow

    from flows.steps import makes

    tries = []

    @makes("judge", "judgements", retry_delay_seconds=0)
    def judge(run: Any) -> None:
        tries.append(1)
        raise StageError("the disk is full")

    @flow
    def night() -> None:
        judge(run)

    with pytest.raises(StageError):
        night()
    assert len(tries) == 1


@pytest.mark.slow
def test_a_store_has_one_writer_among_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.lock import BusyError, lock

    home = Home(f"memory://{uuid.uuid4().hex}")
    monkeypatch.setenv("PRECEPT_SCRATCH", str(tmp_path / "one"))
    with lock(home):
        began = time.monotonic()
        monkeypatch.setenv("PRECEPT_SCRATCH", str(tmp_path / "another"))
        with pytest.raises(BusyError, match=r"another run is writing to memory://"), lock(home):
            pass
        assert time.monotonic() - began < 30
        with lock(Home(f"memory://{uuid.uuid4().hex}")):
            pass
    with lock(home):
        pass
