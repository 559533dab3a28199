"""The Ray cluster that work runs on: joined or started, asked for room, its faults explained.

A run joins the cluster at `$RAY_ADDRESS`, or starts one on this machine that ends with it.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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
    logging.getLogger("ray.data").setLevel(logging.ERROR)


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


def root_cause(error: BaseException, *, links: tuple[str, ...]) -> BaseException:
    """Returns the innermost exception of a chain; `links` are the attributes that lead inward.

    Ray wraps what a worker raised several times: Ray Core under `cause` and `__cause__`, Ray Train
    under `_base_exc`.
    """
    while inner := next(filter(None, (getattr(error, name, None) for name in links)), None):
        error = inner
    return error


def message_of(error: BaseException) -> str:
    """Returns an exception's own words in one line.

    Ray ends its messages with what matters; other libraries begin with it and add advice.
    """
    from ray.exceptions import RayError

    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return "no message"
    return lines[-1] if isinstance(error, RayError) else lines[0]


def end_actors(handles: list[Any], *, seconds: float = 20.0) -> None:
    """Ends actors that hold engines, and frees what they held."""
    import ray

    # vLLM frees its memory only if it is told to stop; a killed actor would leave it behind.
    stopping = [handle.stop.remote() for handle in handles]
    ray.wait(stopping, num_returns=len(stopping), timeout=seconds)
    for handle in handles:
        ray.kill(handle)
