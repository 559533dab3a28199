"""The Ray cluster that work runs on: joined or started, asked for room, its faults explained.

A run joins the cluster at `$RAY_ADDRESS`, or starts one on this machine that ends with it.
"""

import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import dropwhile
from pathlib import Path
from typing import Any

_SECONDS_AT_AN_END = 1.5


class RoomError(RuntimeError):
    """The cluster has no room for what was asked of it."""


def start_ray() -> None:
    """Joins the Ray cluster at `$RAY_ADDRESS`, or starts one on this machine, quietly."""
    import ray

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    # Hides Ray's authentication notice.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:
        # Without a dashboard Ray Train looks for one for 12 s at the end of every training.
        os.environ.setdefault("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    # Messages of Ray's own processes, which it would print among a command's results.
    ray._private.worker._worker_logs_enabled = False
    with _own_sigterm():
        ray.init(
            # "local", because Ray would otherwise join a cluster that was left running here.
            address=address or "local",
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            configure_logging=False,
        )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Keeps the class of an exception that our code raised.
    context.raise_original_map_exception = True
    context.print_on_execution_start = False
    # It prints the traceback of a fault that it raises as well.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keeps the handler of SIGTERM, by which the command or Prefect ends a run, from Ray's own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def logs_of_engines() -> str:
    """Returns the folder, on the node of an engine, that holds what the engine printed."""
    import ray

    session = ray.get_runtime_context().get_session_name()
    return f"{os.environ.get('RAY_TMPDIR', '/tmp')}/ray/{session}/logs"


def printed_cause(error: BaseException) -> str | None:
    """Returns the last exception that an actor's processes printed, where its own says no more.

    vLLM's engine is a process below the actor: its exception says only that the cause was printed.
    None if the actor is on another node, or its exception says more.
    """
    # Ray's exception has no attribute for the process once it has taken the class of its cause.
    process = re.search(r"pid=(\d+)", str(error))
    if process is None or not re.search(r"(root cause|stack trace) \(?above", str(error)):
        return None
    for file in Path(logs_of_engines()).glob(f"worker-*-{process[1]}.err"):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        if printed := [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]:
            return printed[-1]
    return None


def autoscales() -> bool:
    """Returns whether `$PRECEPT_AUTOSCALES` says that pending work brings nodes."""
    return bool(os.environ.get("PRECEPT_AUTOSCALES"))


def require_room(
    free: dict[str, float], needs: dict[str, float], *, what: str, remedy: str
) -> None:
    """Raises RoomError if the cluster lacks a resource that `what` needs; Ray would wait for ever.

    `free` and `needs` are amounts by Ray's names, as `{"CPU": 2.0, "GPU": 1.0}`.
    """
    if autoscales():
        return
    for name, amount in needs.items():
        if amount > free.get(name, 0.0):
            raise RoomError(
                f"{what} needs {amount:g} {name}s and the Ray cluster has "
                f"{free.get(name, 0.0):g}; {remedy}"
            )


_WRAPPING = ("ray", "prefect", "vllm")
"""Packages whose exceptions say less than those that they wrap."""


def root_cause(error: BaseException) -> BaseException:
    """Returns the exception that Ray, vLLM, Prefect or a group of tasks wrapped, however often.

    What any other exception was raised from stays behind it: its own words were chosen.
    """
    for cause in causes(error):
        is_group = isinstance(cause, BaseExceptionGroup)
        if not is_group and type(cause).__module__.split(".")[0] not in _WRAPPING:
            return cause
    return cause


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception, what it wraps or was raised from, and so on inward."""
    seen: list[BaseException] = []
    inner: BaseException | None = error
    while inner is not None and all(inner is not each for each in seen):
        seen.append(inner)
        yield inner
        inner = _inner(inner)


def _inner(error: BaseException) -> BaseException | None:
    """Returns the exception that this one wraps, or None.

    Ray Core keeps it under `cause`, Ray Train under `_base_exc` and by worker, all others under
    `__cause__`.
    """
    if isinstance(error, BaseExceptionGroup):
        return error.exceptions[0]
    failures = getattr(error, "worker_failures", None)
    found = list(failures.values())[-1:] if isinstance(failures, dict) else []
    found += [getattr(error, name, None) for name in ("_base_exc", "cause", "__cause__")]
    return next((each for each in found if isinstance(each, BaseException)), None)


_FRAME = re.compile(r'^\s+File ".*", line \d+.*$', re.MULTILINE)


def message_of(error: BaseException) -> str:
    """Returns an exception's own words in one line: its first paragraph, and what a heading at its
    end announces.

    Libraries begin with what matters and add advice in paragraphs of its own. Ray begins with the
    traceback of the worker, and without one ends with what matters.
    """
    from ray.exceptions import RayError

    text = str(error)
    if isinstance(error, RayError):
        text = _behind_frames(text)
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]
    if not paragraphs:
        return "no message"
    message, *others = paragraphs
    for paragraph in others:
        if not message.endswith(":"):
            break
        message = f"{message} {paragraph}"
    return message


def _behind_frames(text: str) -> str:
    """Returns what follows the last frame of a traceback; the last line if there is no frame."""
    lines = text.strip().splitlines()
    frames = list(_FRAME.finditer(text))
    if frames:
        # The code of the frame and the signs below it are indented.
        behind = dropwhile(
            lambda line: line[:1] in ("", " "), text[frames[-1].end() :].splitlines()
        )
        return "\n".join(behind) or lines[-1]
    return lines[-1] if lines else ""


def end_actors(handles: list[Any], *, seconds: float = 20.0) -> None:
    """Ends actors that hold engines, and frees what they held.

    Waits at most `seconds`, and hardly at all where Ctrl-C or its like ends the process.
    """
    import ray

    if not isinstance(sys.exc_info()[1], Exception | None):
        seconds = min(seconds, _SECONDS_AT_AN_END)
    # vLLM frees its memory only if it is told to stop; a killed actor would leave it behind.
    stopping = [handle.stop.remote() for handle in handles]
    ray.wait(stopping, num_returns=len(stopping), timeout=seconds)
    for handle in handles:
        ray.kill(handle)
