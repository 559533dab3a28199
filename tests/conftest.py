"""Settings and warehouses that tests share."""

import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import fsspec
import pytest
from hypothesis import settings

from warehouse.shards import Home

# A busy machine is no fault of the code, and the same code gives the same result.
settings.register_profile("precept", deadline=None, derandomize=True, database=None)
settings.load_profile("precept")


@pytest.fixture(params=["disk", "store"])
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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ["PREFECT_HOME"] = str(tmp_path_factory.mktemp("prefect"))
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    api = f"http://127.0.0.1:{port}/api"
    deadline = time.monotonic() + 120
    while True:
        try:
            urlopen(f"{api}/health", timeout=1).close()
            break
        except (URLError, TimeoutError):
            assert server.poll() is None and time.monotonic() < deadline, "no Prefect server"
            time.sleep(0.5)
    os.environ["PREFECT_API_URL"] = api
    yield
    server.terminate()
    server.wait(timeout=30)
