"""Seconds that Ctrl-C takes to end a command, and what it leaves behind.

    python tests/benchmarks/interrupt.py [--prompts 24] [--commands refresh train …]

Each command runs on Harbour in a pseudo-terminal of its own and gets a ^C there: while models load,
when the first rows or steps are done, and late. The tries of a command share a warehouse, so
that each resumes the one before, and a last run goes on to the end. A moment is a state of the
warehouse or a process at work, never a time.
"""

import argparse
import os
import pty
import re
import select
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from flows.lock import is_locked
from warehouse.catalog import connect
from warehouse.home import Home

PROJECT = Path(__file__).parents[2]
COMMANDS = ("refresh", "train", "evaluate", "run", "calibrate", "ablate")

Moment = Callable[["Command"], bool]


@dataclass(slots=True)
class Command:
    """A command in a pseudo-terminal, as a session of its own."""

    arguments: tuple[str, ...]
    home: Path
    pid: int = field(init=False)
    screen: bytes = b""
    """What it printed."""
    _terminal: int = field(init=False)

    def __post_init__(self) -> None:
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(PROJECT)
            command = [sys.executable, "-m", "flows", *self.arguments, "--home", str(self.home)]
            os.execv(sys.executable, command)

    def processes(self) -> list[psutil.Process]:
        """Returns the command's process and all below it."""
        with suppress(psutil.NoSuchProcess):
            own = psutil.Process(self.pid)
            return [own, *own.children(recursive=True)]
        return []

    def reads(self) -> bool:
        """Takes in what the command printed; returns False once it has ended."""
        if select.select([self._terminal], [], [], 0.2)[0]:
            try:
                text = os.read(self._terminal, 65536)
            except OSError:
                return False
            self.screen += text
            return bool(text)
        return True

    def press(self) -> None:
        """Presses Ctrl-C in its terminal."""
        os.write(self._terminal, b"\x03")

    def wait(self) -> int:
        """Returns the exit code once it has ended."""
        while self.reads():
            pass
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The end of a command after a Ctrl-C."""

    seconds: float
    exit_code: int
    left: tuple[str, ...]
    """Processes of the command that outlived it."""
    lines: tuple[str, ...]
    """What it printed after the Ctrl-C, without progress bars."""
    is_locked: bool
    num_processes: int
    """Processes that were at work."""


def interrupt(command: Command, moment: Moment) -> Ended | None:
    """Presses Ctrl-C at a moment; returns None if the command ended before it."""
    while not moment(command):
        if not command.reads():
            print(command.wait(), *lines_of(command.screen), sep="\n", file=sys.stderr)
            return None
    at_work, printed = command.processes(), len(command.screen)
    began = time.monotonic()
    command.press()
    exit_code = command.wait()
    seconds = time.monotonic() - began
    return Ended(
        seconds=seconds,
        exit_code=exit_code,
        left=tuple(filter(None, map(words_of, at_work))),
        lines=tuple(lines_of(command.screen[printed:])),
        is_locked=is_locked(Home(str(command.home))),
        num_processes=len(at_work),
    )


def words_of(process: psutil.Process) -> str:
    """Returns the command of a process, or nothing if it has ended."""
    with suppress(psutil.Error):
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            return " ".join(process.cmdline())[:80]
    return ""


def lines_of(screen: bytes) -> Iterator[str]:
    """Yields the lines of a terminal's output that are not those of a progress bar."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.decode(errors="replace"))
    for line in re.split(r"[\r\n]+", plain):
        if (words := line.removeprefix("^C").strip()) and "━" not in words:
            yield words


def has_process(name: str) -> Moment:
    """Returns the moment at which a process of that name is at work."""

    def moment(command: Command) -> bool:
        for process in command.processes():
            with suppress(psutil.Error):
                if name in " ".join(process.cmdline()):
                    return True
        return False

    return moment


def has_file(pattern: str) -> Moment:
    """Returns the moment at which the warehouse has a file that it had not before."""
    before: dict[Path, set[Path]] = {}

    def moment(command: Command) -> bool:
        files = set(command.home.glob(pattern))
        known = before.setdefault(command.home, files)
        return bool(files - known)

    return moment


def moments(name: str) -> dict[str, Moment]:
    """Returns the moments of a command's tries by name."""
    loading = has_process("ray::VLLMEngine")
    return {
        "refresh": {
            "loading": loading,
            "generating": has_file("completions/*.parquet"),
            "judging": has_file("judgements/*.parquet"),
        },
        "train": {
            "loading": has_process("RayTrainWorker"),
            "first steps": has_file("**/progress.json"),
            "late": has_file("**/checkpoint-*"),
        },
        "evaluate": {
            "loading": loading,
            "answering": has_file("answers/*.parquet"),
            "judging": has_file("evaluations/*.parquet"),
        },
        "run": {
            "loading": loading,
            "generating": has_file("completions/*.parquet"),
            "training": has_file("**/progress.json"),
        },
        "calibrate": {"loading": loading, "judging": has_file("evaluations/*.parquet")},
        "ablate": {
            "training": has_file("**/progress.json"),
            "answering": has_file("answers/*.parquet"),
        },
    }[name]


def rows(home: Path) -> str:
    """Returns rows and distinct ids of the tables that the commands write."""
    keys = {"completions": "completion_id", "judgements": "judgement_id", "answers": "answer_id"}
    connection, counts = connect(Home(str(home))), []
    for table, key in keys.items():
        query = f"SELECT count(*), count(DISTINCT {key}) FROM {table}_raw"
        [(num_rows, num_ids)] = connection.execute(query).fetchall()
        counts.append(f"{table} {num_rows} ({num_ids} ids)")
    return ", ".join(counts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--commands", nargs="+", default=COMMANDS)
    options = parser.parse_args()
    overrides = ["--set", f"sources.0.limit={options.prompts}", "--set", "rl.steps=4"]
    overrides += ["--set", "evaluate.suites=['harbour']", "--set", "sft.workers.save_steps=2"]
    overrides += ["--set", "ablate.seeds=[1]", "--set", "ablate.samples=1"]
    overrides += ["--set", "ablate.arms=[{name='SFT', train=['sft']}]", "--set", "sft.epochs=1"]
    with tempfile.TemporaryDirectory() as folder:
        refreshed = Path(folder) / "refresh"
        print("command | moment | seconds | exit | lock | processes | left | printed", flush=True)
        for name in options.commands:
            home = Path(folder) / name
            if name in ("train", "evaluate", "calibrate", "ablate") and refreshed.is_dir():
                shutil.copytree(refreshed, home)
            for label, moment in moments(name).items():
                ended = interrupt(Command((name, "harbour", *overrides), home), moment)
                shown = "ended before it" if ended is None else describe(ended)
                print(f"{name} | {label} | {shown}", flush=True)
            last = Command((name, "harbour", *overrides), home)
            code = last.wait()
            print(f"{name} | resumed to its end | exit {code} | {rows(home)}", flush=True)
            if code:
                print("\n".join(lines_of(last.screen)), file=sys.stderr)


def describe(ended: Ended) -> str:
    """Returns the cells of a row of the table."""
    lock = "held" if ended.is_locked else "free"
    left = "; ".join(ended.left) or "none"
    return (
        f"{ended.seconds:.1f} | {ended.exit_code} | {lock} | {ended.num_processes} | {left} | "
        + " / ".join(ended.lines)
    )


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(PROJECT))
    main()
