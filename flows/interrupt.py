"""Ctrl-C, SIGTERM and SIGHUP end a command within ten seconds, with all that it started.

The first signal raises Interrupted in the main thread, so that the run frees what it holds. If that
takes too long, or a second signal comes, the command ends at once: a warehouse survives that.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

import psutil

from flows import INTERRUPTED

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_SECONDS_TO_UNWIND = 4.0
_SECONDS_TO_STOP = 1.5
_ROUNDS = 3
"""Times that what is left is killed: a raylet may start workers anew."""
_SAME_PRESS_SECONDS = 0.3
"""A signal this soon after the first is the same one, sent to the process and to its group."""
_PR_SET_CHILD_SUBREAPER = 36


class Interrupted(KeyboardInterrupt):
    """A signal that ends the command."""


class _Watch:
    """The signals of this process, as they arrive.

    A thread of its own reads them, because the main thread may be in a library that lets no handler
    run, and because libraries put handlers of their own in the place of these.
    """

    def __init__(self, at_end: Callable[[], None]) -> None:
        self._at_end = at_end
        self.first: int | None = None
        """The first signal that came."""
        self.is_done = False
        """True once the command has done its work, and only exit handlers are left."""
        self._has_raised = False
        self._has_told = threading.Lock()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        for each in SIGNALS:
            # SIGHUP is ignored under nohup, and stays so.
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, self._interrupt)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        threading.Thread(target=self._read, name="signals", daemon=True).start()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Raises Interrupted once: a second must not cut short what the first one frees."""
        self.first = self.first or number
        if _is_importing(frame):
            # An exception in the midst of a C++ module's import aborts the process.
            self.end(number)
        if not self.is_done and not self._has_raised:
            self._has_raised = True
            raise Interrupted(number)

    def _read(self) -> None:
        """Ends the command at a second Ctrl-C, or when it takes too long to end by itself."""
        began: float | None = None
        while numbers := os.read(self._reader, 64):
            for number in filter(SIGNALS.__contains__, numbers):
                if began is None:
                    began = time.monotonic()
                    self.first = self.first or number
                    if self.is_done:
                        self.end(number)
                    timer = threading.Timer(_SECONDS_TO_UNWIND, self.end, [number])
                    timer.daemon = True
                    timer.start()
                # Not SIGTERM: Prefect sends it again once a flow has ended.
                elif number == signal.SIGINT and time.monotonic() - began > _SAME_PRESS_SECONDS:
                    self.end(number, seconds=0.0)

    def end(self, number: int, *, seconds: float = _SECONDS_TO_STOP) -> NoReturn:
        """Says so, ends every process that this one started, and then itself."""
        if self._has_told.acquire(blocking=False):
            _tell()
        raylets = end_children(seconds=seconds)
        self._at_end()
        for raylet in raylets:
            with suppress(psutil.Error):
                raylet.kill()
        # Exit handlers of libraries would wait for processes and threads that are gone.
        os._exit(128 + number)


def _tell() -> None:
    """Writes the one line that the user sees; the terminal may be gone."""
    # A progress bar hides the cursor, and the terminal shows the key as ^C. Past the buffer, whose
    # lock the main thread may hold.
    cursor = "\r\x1b[?25h" if sys.stderr.isatty() else ""
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"{cursor}{INTERRUPTED}\n".encode())


def _is_importing(frame: FrameType | None) -> bool:
    """Returns whether the code of this frame, or code that called it, imports a module."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


@contextmanager
def ended_by_signals(at_end: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Ends this process with exit code 128 + n when signal n comes, whatever the block does, and
    also after it: exit handlers of libraries take their time.

    `at_end` is called last, because no handler at exit is.
    """
    watch = _Watch(at_end)
    try:
        yield
    finally:
        if watch.first is not None:
            with suppress(OSError):
                sys.stdout.flush()
            watch.end(watch.first)
        watch.is_done = True


@contextmanager
def interrupts_raised() -> Iterator[None]:
    """Makes Ctrl-C raise KeyboardInterrupt in the block, as often as it comes, and end nothing."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    # The watch over signals would end the command.
    writer = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, handler)


def end_children(*, seconds: float) -> list[psutil.Process]:
    """Ends all descendants of this process: asks them, and kills those left after `seconds`.

    Returns those that still run: Ray's own `raylet` must be the last to go, because Ray ends a
    process with exit code 1 as soon as it misses the raylet.
    """
    if sys.platform == "linux":
        # Processes whose parents end first become children of this one, so none is lost sight of.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    me = psutil.Process()
    asked, raylets = _parted(me.children(recursive=True))
    for child in asked if seconds else []:
        with suppress(psutil.Error):
            child.terminate()
    psutil.wait_procs(asked, timeout=seconds)
    for _ in range(_ROUNDS):
        left, raylets = _parted(me.children(recursive=True))
        if not left:
            break
        for child in left:
            with suppress(psutil.Error):
                child.kill()
        psutil.wait_procs(left, timeout=1.0)
    return raylets


def _parted(
    processes: Iterable[psutil.Process],
) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """Returns the processes that are no raylets, and the raylets."""
    others: list[psutil.Process] = []
    raylets: list[psutil.Process] = []
    for process in processes:
        name = ""
        with suppress(psutil.Error):
            name = process.name()
        (raylets if name == "raylet" else others).append(process)
    return others, raylets
