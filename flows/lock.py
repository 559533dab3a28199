"""One writer a warehouse."""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from warehouse.home import Home
from warehouse.models import scratch

_SECONDS_TO_ASK = 5.0


class BusyError(ValueError):
    """Another run writes to this warehouse."""


@contextmanager
def lock(home: Home) -> Iterator[None]:
    """One writer a warehouse; a process that is killed leaves it free.

    The kernel holds the lock, among all that see the warehouse or, if it is on a store, its scratch
    folder. On a store Prefect's server, where one is configured, holds another, with a lease: among
    all that share it, and for a minute after a process was killed. Waits `$PRECEPT_WAIT_SECONDS`
    for another run (default 0), then raises BusyError.
    """
    patience = float(os.environ.get("PRECEPT_WAIT_SECONDS", "0"))
    with ExitStack() as held:
        held.enter_context(_file_lock(home, patience))
        if not home.is_local and _has_server():
            held.enter_context(_lease(home, patience))
        yield


@contextmanager
def _file_lock(home: Home, patience: float) -> Iterator[None]:
    """The lock that the kernel holds."""
    path = _lock_path(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        holder = Path(f"{path}.holder")
        who = holder.read_text() if holder.exists() else "another process"
        raise BusyError(
            f"{who} is writing to {home.url}; wait for it to end, or give another --home"
        ) from None
    try:
        Path(f"{path}.holder").write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        lock.release()


def _has_server() -> bool:
    """Whether a server of Prefect's is configured; else each run starts one for itself."""
    from prefect.settings import get_current_settings

    return bool(get_current_settings().api.url)


def _lock_path(home: Home) -> Path:
    """The file whose lock the kernel holds for a writer."""
    return scratch(home) / "writer.lock"


@contextmanager
def _lease(home: Home, patience: float) -> Iterator[None]:
    """The one place among the writers of a store, by a limit of Prefect's."""
    from prefect.client.orchestration import get_client
    from prefect.concurrency.sync import concurrency

    name = re.sub(r"[^A-Za-z0-9.-]+", ".", f"writer of {home.root}")
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, 1)
    place = concurrency(
        name,
        timeout_seconds=max(patience, _SECONDS_TO_ASK),
        lease_duration=60,
        strict=True,
        # A server that restarts takes nothing from the run that is at work.
        raise_on_lease_renewal_failure=False,
    )
    with ExitStack() as held:
        try:
            held.enter_context(place)
        except TimeoutError:
            raise BusyError(
                f"another run is writing to {home.url}; wait for it to end, or give another "
                f"--home; if none is, free its place: prefect gcl update {name!r} --active-slots 0"
            ) from None
        yield


def is_locked(home: Home) -> bool:
    """Whether a run is writing to this home now, as far as its lock file tells."""
    path = _lock_path(home)
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
