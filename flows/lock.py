"""One writer a warehouse: the kernel's lock and, on a store, a lease from Prefect's server.

The kernel's lock covers every process that sees the warehouse's disk (on a store: its scratch
folder), and is released when its process dies. A store is shared more widely; there a lease covers
every machine that uses the same Prefect server, and expires a minute after its process died.
"""

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from warehouse.home import Home
from warehouse.models import scratch

_LEASE_REQUEST_SECONDS = 5.0
_LOOK_SECONDS = 0.5


class BusyError(ValueError):
    """Another run writes to this warehouse."""


@contextmanager
def lock(home: Home) -> Iterator[None]:
    """Holds the warehouse's single-writer lock; it is released if the process dies.

    Waits `$PRECEPT_WAIT_SECONDS` for another run (default 0), then raises BusyError.
    """
    patience = _patience()
    with ExitStack() as locks:
        locks.enter_context(_file_lock(home, patience))
        if not home.is_local and _has_server():
            locks.enter_context(_lease(home, patience))
        yield


def require_free(home: Home) -> None:
    """Raises BusyError if another run writes to the warehouse and the command would not wait."""
    if _patience() <= 0 and is_locked(home):
        raise _busy(home)


def _patience() -> float:
    """Returns the seconds that a run waits for another one to end."""
    return float(os.environ.get("PRECEPT_WAIT_SECONDS", "0"))


def is_locked(home: Home) -> bool:
    """Returns whether a run writes to this warehouse now, as far as its lock file tells."""
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


def locked_since(home: Home) -> datetime | None:
    """Returns when the writer of this warehouse took its lock; None if there is no writer."""
    if not is_locked(home):
        return None
    holder = _holder_path(home)
    moment = holder.stat().st_mtime if holder.exists() else time.time()
    return datetime.fromtimestamp(moment, UTC)


@contextmanager
def _file_lock(home: Home, patience: float) -> Iterator[None]:
    """Holds the kernel's lock, and names the holder in a file beside it."""
    path = _lock_path(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    holder = _holder_path(home)
    try:
        # A look whether it is held holds it for a moment.
        lock.acquire(timeout=max(patience, _LOOK_SECONDS))
    except Timeout:
        raise _busy(home) from None
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        lock.release()


def _busy(home: Home) -> BusyError:
    holder = _holder_path(home)
    name = holder.read_text() if holder.exists() else "another process"
    return BusyError(f"{name} is writing to {home.url}; wait for it to end, or give another --home")


def _lock_path(home: Home) -> Path:
    """Returns the file whose lock a writer holds."""
    return scratch(home) / "writer.lock"


def _holder_path(home: Home) -> Path:
    """Returns the file that names the last holder of the lock, written when it was taken."""
    return Path(f"{_lock_path(home)}.holder")


def _has_server() -> bool:
    """Returns whether a Prefect server is configured; without one, each run starts its own."""
    from prefect.settings import get_current_settings

    return bool(get_current_settings().api.url)


@contextmanager
def _lease(home: Home, patience: float) -> Iterator[None]:
    """Takes the store's single writer slot, a Prefect concurrency limit of 1."""
    from prefect.client.orchestration import get_client
    from prefect.concurrency.sync import concurrency

    name = re.sub(r"[^A-Za-z0-9.-]+", ".", f"writer of {home.root}")
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(name, 1)
    slot = concurrency(
        name,
        timeout_seconds=max(patience, _LEASE_REQUEST_SECONDS),
        lease_duration=60,
        strict=True,
        # A server that restarts must not end the run that holds the slot.
        raise_on_lease_renewal_failure=False,
    )
    with ExitStack() as slots:
        try:
            slots.enter_context(slot)
        except TimeoutError:
            raise BusyError(
                f"another run is writing to {home.url}; wait for it to end, or give another "
                f"--home; if none is, free its slot: prefect gcl update {name!r} --active-slots 0"
            ) from None
        yield
