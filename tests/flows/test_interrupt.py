"""Ctrl-C: a command ends soon, says one line, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from flows import INTERRUPTED

SECONDS = 120.0
"""Patience with a busy machine; every wait is for a state."""


@contextmanager
def command(body: str, *, unwind: float = 60.0) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `body` as a command does, and has said that it is ready."""
    script = (
        "import os, signal, subprocess, sys, time\n"
        # Whoever runs the tests may ignore it, as nohup does.
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "from flows import interrupt\n"
        f"interrupt._SECONDS_TO_UNWIND = {unwind}\n"
        "def ready(*words): print('ready', *words, flush=True)\n"
        "with interrupt.ended_by_signals():\n"
    ) + "".join(f"    {line}\n" for line in body.splitlines())
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def when_ready(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    line = process.stdout.readline().split()
    assert line and line[0] == "ready", process.communicate()
    return line[1:]


def is_alive(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signal_ends_a_command_with_its_code_and_one_line(number: int, code: int) -> None:
    with command("ready()\ntime.sleep(600)") as process:
        when_ready(process)
        process.send_signal(number)
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == code
    assert err == f"{INTERRUPTED}\n"


def test_what_a_run_holds_is_freed_first(tmp_path: Path) -> None:
    freed = tmp_path / "freed"
    body = (
        f"try:\n    ready()\n    time.sleep(600)\nfinally:\n    open({str(freed)!r}, 'w').close()"
    )
    with command(body) as process:
        when_ready(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
    assert freed.exists()


def test_processes_below_are_ended_also_those_of_another_session_and_orphans() -> None:
    # The shell in the middle ends with the first signal, and its child does not.
    stubborn = (
        "import os, signal, time; signal.signal(15, signal.SIG_IGN); "
        "print(os.getpid(), flush=True); time.sleep(600)"
    )
    body = (
        f"below = [sys.executable, '-c', {stubborn!r}]\n"
        "own = subprocess.Popen(below, stdout=subprocess.PIPE, start_new_session=True)\n"
        "shell = subprocess.Popen(['sh', '-c', '\"$@\" & wait', 'sh', *below],\n"
        "    stdout=subprocess.PIPE)\n"
        "ready(*(each.stdout.readline().decode().strip() for each in (own, shell)))\n"
        "time.sleep(600)"
    )
    with command(body) as process:
        below = [int(pid) for pid in when_ready(process)]
        assert all(is_alive(pid) for pid in below)
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
    left = [pid for pid in below if is_alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


@pytest.mark.parametrize(
    "body",
    [
        # Code that swallows the exception, as callbacks of libraries do.
        "ready()\nwhile True:\n    try:\n        time.sleep(600)\n    except BaseException:\n"
        "        pass",
        # A library that has put its own handler there, as Ray Train does.
        "signal.signal(signal.SIGINT, lambda *seen: None)\nready()\nwhile True:\n"
        "    time.sleep(600)",
        # A library that lets no handler run.
        "import hashlib\nready()\nhashlib.pbkdf2_hmac('sha256', b'a', b'b', 2**31 - 1)",
    ],
    ids=["swallowed", "replaced", "blocked"],
)
def test_command_that_does_not_end_by_itself_is_ended(body: str) -> None:
    with command(body, unwind=0.2) as process:
        when_ready(process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert err == f"{INTERRUPTED}\n"


def test_second_press_ends_a_command_at_once() -> None:
    body = "try:\n    ready()\n    time.sleep(600)\nfinally:\n    ready()\n    time.sleep(600)"
    with command(body) as process:
        when_ready(process)
        process.send_signal(signal.SIGINT)
        when_ready(process)
        # Two signals at one moment are one press.
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert err == f"{INTERRUPTED}\n"


def test_command_that_ends_by_itself_keeps_its_code() -> None:
    with command("sys.exit(3)") as process:
        _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (3, "")


def test_command_is_ended_also_while_libraries_exit() -> None:
    with command("import atexit\natexit.register(lambda: (ready(), time.sleep(600)))") as process:
        when_ready(process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (130, f"{INTERRUPTED}\n")


def test_import_is_not_broken_off_by_an_exception(tmp_path: Path) -> None:
    # As C++ modules do, which abort the process when their import raises.
    slow = "import os, time\nprint('ready', flush=True)\ntry:\n    time.sleep(600)\n"
    (tmp_path / "slow.py").write_text(slow + "except BaseException:\n    os.abort()\n")
    with command(f"sys.path.insert(0, {str(tmp_path)!r})\nimport slow") as process:
        when_ready(process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (130, f"{INTERRUPTED}\n")


@pytest.mark.slow
def test_ctrl_c_while_generating_leaves_nothing_and_the_same_command_goes_on(
    tmp_path: Path,
) -> None:
    from flows.lock import is_locked
    from tests.benchmarks.interrupt import Command, has_file, interrupt
    from warehouse.catalog import connect, read
    from warehouse.home import Home

    # Without the server that tests share, as a user's command is.
    arguments = ("refresh", "harbour", "--set", "sources.0.limit=24")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PREFECT_API_URL", raising=False)
        ended = interrupt(Command(arguments, tmp_path), has_file("completions/*.parquet"))
        assert ended is not None
        assert (ended.exit_code, ended.left, ended.lines) == (130, (), (INTERRUPTED,))
        assert ended.seconds < 60  # 5 s on a machine that is not busy
        home = Home(str(tmp_path))
        assert not is_locked(home)
        statuses = connect(home).sql("SELECT status FROM runs").fetchall()
        assert statuses == [("interrupted",)]
        assert Command(arguments, tmp_path).wait() == 0
    connection = connect(home)
    for table, key in (("completions", "completion_id"), ("judgements", "judgement_id")):
        query = f"SELECT count(*) - count(DISTINCT {key}) FROM {table}_raw"
        assert connection.sql(query).fetchall() == [(0,)]
    verdicts = read(
        connection, "SELECT count(*), count(*) FILTER (verdict = 'unjudged') FROM verdicts"
    )
    assert verdicts.fetchall() == [(48, 0)]
