"""`precept inspect` serves the page to whoever has its token, and ends with the command."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import HTTPCookieProcessor, build_opener

import psutil
import pytest
from typer.testing import CliRunner

from flows.__main__ import app
from tests.warehouse.app.test_snapshot import fill
from warehouse.app.server import ServerError, listening, serving
from warehouse.home import Home

SECONDS = 120.0


def title_of(url: str) -> str:
    """The title of the page that a browser without cookies comes to, or the status of a refusal."""
    try:
        with build_opener(HTTPCookieProcessor()).open(url, timeout=30) as reply:
            found = re.search("<title>(.*?)</title>", reply.read().decode())
            return found[1] if found else ""
    except HTTPError as error:
        return str(error.code)


@contextmanager
def served(home: Home, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command at work, and the address that it printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows", "inspect", "--home", home.url, "--no-browser", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_a_place_that_is_no_warehouse_is_told_before_anything_starts(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", "--home", str(tmp_path / "none"), "--no-browser"])
    assert result.exit_code == 2
    assert "there is no warehouse at" in result.output
    assert "http" not in result.output


def test_without_marimo_the_command_says_what_to_install(
    disk: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(disk)
    monkeypatch.setitem(sys.modules, "marimo", None)
    result = CliRunner().invoke(app, ["inspect", "--home", disk.url, "--no-browser"])
    assert result.exit_code == 2
    assert "pip install 'precept[app]'" in result.output


def test_a_port_that_is_taken_is_told(disk: Home) -> None:
    fill(disk)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ["inspect", "--home", disk.url, "--no-browser", "--port", port]
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert f"127.0.0.1:{port}" in result.output and "--port" in result.output


@pytest.mark.parametrize("options", [{"host": ""}, {"host": "a" * 70}, {"port": 70_000}])
def test_an_address_that_cannot_be_is_told(disk: Home, options: dict[str, Any]) -> None:
    with pytest.raises(ServerError, match="host"), serving(disk, **options):
        pass


def test_pages_that_start_at_once_have_ports_of_their_own(disk: Home) -> None:
    fill(disk)
    # A page binds its port before it reads the warehouse, and answers after.
    with listening("127.0.0.1", None) as one, listening("127.0.0.1", None) as other:
        assert one.getsockname() != other.getsockname()


@pytest.mark.slow
def test_the_page_is_served_to_its_token_alone_until_ctrl_c(disk: Home) -> None:
    fill(disk)
    with served(disk) as (process, url):
        parts = urlsplit(url)
        assert parts.hostname == "127.0.0.1"
        [token] = parse_qs(parts.query)["access_token"]
        bare = f"http://{parts.netloc}"
        assert title_of(url) == "Precept"
        # Whoever has no token is sent to the form that asks for it.
        for refused in (bare, f"{bare}/?access_token=x{token}"):
            assert title_of(refused) == "marimo"
        assert title_of(f"{bare}/api/status") == "401"
        started = [psutil.Process(process.pid), *psutil.Process(process.pid).children(True)]
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
        assert not psutil.wait_procs(started, timeout=10)[1]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((parts.hostname, parts.port or 0), timeout=5)


@pytest.mark.slow
def test_the_page_lets_no_data_make_the_browser_fetch_from_elsewhere(disk: Home) -> None:
    fill(disk)
    with (
        served(disk) as (_, url),
        build_opener(HTTPCookieProcessor()).open(url, timeout=30) as reply,
    ):
        rules = dict(
            rule.strip().split(" ", 1)
            for rule in reply.headers["Content-Security-Policy"].split(";")
        )
    assert rules["default-src"] == "'self'" and rules["img-src"] == "'self' data: blob:"
    assert not any("http" in sources or "*" in sources for sources in rules.values())


@pytest.mark.slow
def test_a_taken_default_port_gives_way_to_a_free_one(disk: Home) -> None:
    fill(disk)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # some other page may have it
            taken.bind(("127.0.0.1", 2718))
            taken.listen()
        with served(disk) as (_, url):
            assert urlsplit(url).port not in (None, 2718)
