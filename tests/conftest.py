"""Settings and warehouses that tests share."""

import atexit
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import settings

from flows.__main__ import _end_event_loops
from tests.servers import running
from warehouse.home import Home

# What commands print must not depend on the terminal of whoever runs the tests.
os.environ.pop("COLUMNS", None)
# As `precept` does; DuckDB would report its types as leaks.
atexit.register(_end_event_loops)

# Ray's workers would give way to everything else on the machine, and tests have their limits.
os.environ.setdefault("RAY_worker_niceness", "0")
# A script that runs the tests in the background has them, and what they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no fault of the code, and the same code gives the same result.
settings.register_profile("precept", deadline=None, derandomize=True, database=None)
settings.load_profile("precept")


@pytest.fixture(params=["disk", pytest.param("store", marks=pytest.mark.slow)])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    """A warehouse on a disk, and one on a file system that is not local."""
    if request.param == "disk":
        yield Home(str(tmp_path / "it's home"))
        return
    url = f"memory://{uuid.uuid4().hex}"
    yield Home(url)
    files, root = fsspec.core.url_to_fs(url)
    if files.exists(root):
        files.rm(root, recursive=True)


@pytest.fixture
def disk(tmp_path: Path) -> Home:
    """A warehouse on a disk alone."""
    return Home(str(tmp_path / "home"))


@pytest.fixture(scope="session", autouse=True)
def prefect_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """One Prefect server for all tests that run flows: each would start one of its own."""
    if not any(item.get_closest_marker("slow") for item in request.session.items):
        yield
        return
    from prefect.context import refresh_global_settings_context
    from prefect.events.worker import EventsWorker

    os.environ["PREFECT_HOME"] = str(tmp_path_factory.mktemp("prefect"))
    command = ("prefect", "server", "start", "--port")
    with running(*command, answers="/api/health", seconds=120) as url:
        os.environ["PREFECT_API_URL"] = f"{url}/api"
        # Prefect read its settings when a test module imported it.
        refresh_global_settings_context()
        yield
        # Ends all services of Prefect, which would try for long to reach a server that is gone.
        EventsWorker.drain_all(timeout=60)
