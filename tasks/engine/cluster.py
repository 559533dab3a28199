"""The Ray cluster that work runs on: joined or started, and asked for room.

A run joins the cluster at `$RAY_ADDRESS`, or starts one on this machine that ends with it.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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
