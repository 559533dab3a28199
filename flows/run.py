"""A run: its warehouse, its engines, its figures, and its record in the `runs` table."""

import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa

from flows.lock import lock
from flows.recipe import Recipe, require_own_versions
from specs.criteria import forget_criteria
from specs.policy import Pack, Spec, spec_key
from specs.template import forget_templates, load_template
from tasks.data.assign import AssignWork
from tasks.data.candidates import SourceNotes
from tasks.data.collect import collect
from tasks.data.collected import Collected, Origin
from tasks.data.conflicts import Conflicts
from tasks.data.counts import Counts
from tasks.data.curate import Curated
from tasks.data.documents import DocumentPlan, DocumentsConfig, DocumentWork
from tasks.data.drift import Drift
from tasks.data.filling import FilledFile
from tasks.engine.pool import EnginePool
from tasks.engine.requests import EngineConfig
from tasks.evaluation.plan import EvaluationPlan
from tasks.evaluation.rows import SuiteFigures
from tasks.monitors import Monitored
from tasks.provenance import package_versions, source_commit
from tasks.stage import StageFigures
from tasks.training.trainer import TrainingFigures
from warehouse.catalog import check_version, connect, look_up
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import RUNS, SPECS, Run, SpecText
from warehouse.upkeep import Damaged


def home_at(url: str | None) -> Home:
    """Returns the warehouse at a place: as given, else `$PRECEPT_HOME`, else `.precept` here.

    A local place becomes absolute, because actors work in folders of their own. Raises ValueError
    for an empty place, as a variable that is not set would give.
    """
    if url == "":
        raise ValueError("--home is empty; give it the folder or the address of a warehouse")
    home = Home(url or os.environ.get("PRECEPT_HOME") or ".precept")
    return Home(home.root) if home.is_local else home


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows that a run wants: prompts with the spec that each is made under."""

    wanted: pa.Table
    """Columns prompt_id and spec_id, of the prompts that the generator is asked."""
    traces: pa.Table
    """Columns completion_id, spec_id and judging_id; the last is null of traces that the run's own
    judge judges."""
    specs: Mapping[str, Spec]
    """The specs by their ids."""


def plan_for(pack: Pack, prompts: pa.Table, traces: pa.Table) -> Plan:
    """Compiles the spec of every prompt wanted, and of those of the traces.

    `prompts` and `traces` have the columns of `Collected`; prompts without a category are left out.
    """
    columns = (prompts[name].to_pylist() for name in ("prompt_id", "categories", "is_asked"))
    rows = [
        (prompt_id, tuple(categories), is_asked)
        for prompt_id, categories, is_asked in zip(*columns, strict=True)
        if categories
    ]
    specs = {categories: pack.spec(categories) for categories in {chosen for _, chosen, _ in rows}}
    spec_ids = {prompt_id: specs[categories].id for prompt_id, categories, _ in rows}
    asked = [prompt_id for prompt_id, _, is_asked in rows if is_asked]
    wanted = pa.table(
        {
            "prompt_id": pa.array(asked, pa.string()),
            "spec_id": pa.array([spec_ids[prompt_id] for prompt_id in asked], pa.string()),
        }
    )
    judged = traces.append_column(
        "spec_id",
        pa.array([spec_ids.get(name) for name in traces["prompt_id"].to_pylist()], pa.string()),
    )
    judged = judged.filter(judged["spec_id"].is_valid())
    return Plan(
        wanted,
        judged.select(["completion_id", "spec_id", "judging_id"]),
        {spec.id: spec for spec in specs.values()},
    )


def assign_work(recipe: Recipe, pack: Pack, *, model: str, run_id: str = "") -> AssignWork:
    """Returns the choice of categories by the judge model, whose `name@revision` is given."""
    return AssignWork(
        pack=pack,
        stage=recipe.stage,
        run_id=run_id,
        model=model,
        sampling=recipe.judge.sampling,
        constrain=recipe.judge.constrain,
        reasons=recipe.judging_engine.takes_reasoning,
        template=recipe.judge.template_of("assign"),
    )


def document_work(
    recipe: Recipe, config: DocumentsConfig, pack: Pack, *, model: str, run_id: str = ""
) -> DocumentWork:
    """Returns the writing of documents about a pack by the generator, whose `name@revision` is
    given, or by a function."""
    return DocumentWork(
        config=config,
        stage=recipe.stage,
        pack=pack,
        model=model,
        run_id=run_id,
        template=load_template("document", recipe.generate.template),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigures:
    """Counts and findings of a run, by part; stored as JSON in the run's record."""

    damaged: tuple[Damaged, ...] = ()
    """Shards that were set aside."""
    collect: Mapping[str, Counts] = field(default_factory=dict)
    """By source of prompts, what became of its rows."""
    traces: Mapping[str, Counts] = field(default_factory=dict)
    """By source of traces, what became of its rows."""
    conflicts: Conflicts | None = None
    """Prompts that rows label in different ways."""
    assigned: Mapping[str, int] = field(default_factory=dict)
    """By status, the prompts whose category was left to the judge model."""
    notes: Mapping[str, SourceNotes] = field(default_factory=dict)
    """By source and evaluation set, files that were skipped and places of bad rows, if any."""
    stages: Mapping[str, StageFigures] = field(default_factory=dict)
    """By stage, its counts and usage, over all its retries."""
    silent_judges: Mapping[str, str] = field(default_factory=dict)
    """By `name@revision`, why a judge of the jury could not be asked."""
    monitors: Mapping[str, Monitored] = field(default_factory=dict)
    """By table, what the monitors read in the reasoning, and flagged."""
    curate: Curated | None = None
    drift: Drift | None = None
    approved: str | None = None
    """Id of the run whose judgements a person approved."""
    reason: str | None = None
    """The reason that this person gave."""
    documents: DocumentPlan | None = None
    """The documents that a midtraining wanted."""
    trainings: Mapping[str, TrainingFigures] = field(default_factory=dict)
    """By stage of training, what was trained in this run."""
    checkpoints: tuple[str, ...] = ()
    """Ids of the checkpoints that the run came to, in the order of training."""
    suites: Mapping[str, SuiteFigures] = field(default_factory=dict)
    """By suite, what became of the rows of its source."""
    filled: FilledFile | None = None
    """The file that a fill wrote to; its completed runs tell which drafts are written."""
    evaluation: EvaluationPlan | None = None
    """Arms, suites and graders of the evaluation; the views over an evaluation read it."""

    @property
    def sources(self) -> dict[str, Counts]:
        """By source of prompts or traces, what became of its rows."""
        return {**self.collect, **self.traces}

    @property
    def judge_stages(self) -> list[str]:
        """Names of the stages of a jury, or that of a lone judge."""
        return [name for name in self.stages if name.startswith("judge ")] or ["judge"]

    @property
    def gpu_seconds(self) -> float:
        """GPUs times seconds of all stages and trainings."""
        stages = sum(stage.gpu_seconds for stage in self.stages.values())
        return stages + sum(training.gpu_seconds for training in self.trainings.values())

    def as_json(self) -> str:
        """Returns the parts that are not empty."""
        parts = {name: part for name, part in asdict(self).items() if part not in (None, (), {})}
        return json.dumps(parts, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The outcome of a refresh."""

    run_id: str
    home: str
    funnel: list[dict[str, Any]]
    """Rows of question `funnel`."""
    set_id: str
    num_examples: int
    figures: RunFigures
    models_loaded: int
    shortfall: str | None = None
    """The reason why no example came of it, and a remedy; None if there is one."""


@dataclass(slots=True)
class RunContext:
    """State that the tasks of one run share, in the process that drives the run."""

    recipe: Recipe
    home: Home
    pack: Pack
    engines: EnginePool
    record: Run
    figures: RunFigures = field(default_factory=RunFigures)
    relations: dict[str, pa.Table] = field(default_factory=dict)
    """Tables that every connection of this run shows beside the warehouse's, by name."""
    _versions: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.record.run_id

    def warehouse(self) -> duckdb.DuckDBPyConnection:
        """Returns a fresh connection, with the relations of this run."""
        connection = connect(self.home)
        for name, table in self.relations.items():
            connection.register(name, table)
        return connection

    def version(self, engine: EngineConfig) -> str:
        """Returns `model@revision` of an engine; a local model is hashed once a run."""
        key = engine.model_dump_json()
        if key not in self._versions:
            self._versions[key] = engine.version
        return self._versions[key]

    @property
    def generation_id(self) -> str:
        """Hash of what all completions of the recipe share."""
        return self.recipe.generate.generation_id(self.version(self.recipe.engine))

    @property
    def judging_id(self) -> str:
        """Hash of what all judgements of the recipe share, or of all judges of its jury."""
        return self.recipe.judge.jury_id(self.judges)

    @property
    def judges(self) -> list[str]:
        """`model@revision` of each judge, in the order of asking; raises RecipeError if two are the
        same."""
        versions = [self.version(engine) for engine in self.recipe.judging_engines.values()]
        require_own_versions(versions)
        return versions

    def judging_engine(self, version: str) -> EngineConfig:
        """Returns the engine of the judge that is `model@revision`."""
        engines = self.recipe.judging_engines.values()
        return next(engine for engine in engines if self.version(engine) == version)

    @property
    def assign_work(self) -> AssignWork:
        """The choice of categories for prompts that came without one."""
        model = self.version(self.recipe.judging_engine)
        return assign_work(self.recipe, self.pack, model=model, run_id=self.id)

    def collect(self) -> Collected:
        """Reads the sources of the recipe and stores the prompts and traces that are new."""
        assigning_id = self.assign_work.assigning_id if self.recipe.assigns else None
        return collect(
            self.recipe.all_sources,
            config=self.recipe.collect,
            pack_categories=list(self.pack.policies),
            home=self.home,
            connection=self.warehouse(),
            origin=Origin(self.id, self.pack.rule_ids, assigning_id),
        )

    def adopt(self, prompts: pa.Table, traces: pa.Table) -> Plan:
        """Compiles and stores the specs of the prompts wanted, and records what the run is for.

        `prompts` and `traces` are as in `plan_for`.
        """
        plan = plan_for(self.pack, prompts, traces)
        self.store_specs(plan.specs.values())
        self.relations["wanted"] = plan.wanted
        self.relations["wanted_traces"] = plan.traces
        judges = self.recipe.sources or any(not one.judge for one in self.recipe.traces)
        is_jury = judges and len(self.judges) > 1
        self._write(
            generation_id=self.generation_id if self.recipe.sources else None,
            judging_id=self.judging_id if judges else None,
            jury=self.recipe.judge.judging_ids(self.judges) if is_jury else [],
            spec_ids=sorted(plan.specs),
            traces=[one.plan for one in self.recipe.traces],
        )
        return plan

    def update(self, **parts: Any) -> None:
        """Replaces parts of the figures; the next record of the run shows them."""
        self.figures = replace(self.figures, **parts)

    def note(self, **parts: Any) -> None:
        """Replaces parts of the figures and records them, so that a kill does not lose them."""
        self.update(**parts)
        self._write()

    def add_stage(self, name: str, figures: StageFigures) -> StageFigures:
        """Adds what a try of a stage did to what its earlier tries did; returns the sum."""
        total = self.figures.stages.get(name, StageFigures()) + figures
        self.update(stages={**self.figures.stages, name: total})
        return total

    def compile_specs(self, sets: Iterable[Sequence[str]]) -> dict[str, Spec]:
        """Returns the spec of each set of categories by its `spec_key`; stores new ones."""
        specs = {spec_key(categories): self.pack.spec(categories) for categories in sets}
        self.store_specs(specs.values())
        return specs

    def store_specs(self, specs: Iterable[Spec]) -> None:
        """Stores the specs that the warehouse lacks."""
        stored = {row["spec_id"] for row in look_up(self.warehouse(), "spec_ids")}
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
            if spec.id not in stored
        ]
        write_shard(self.home, SPECS, rows)

    def _write(self, **changes: Any) -> None:
        self.record = replace(
            self.record,
            revision=self.record.revision + 1,
            figures=self.figures.as_json(),
            **changes,
        )
        write_shard(self.home, RUNS, [self.record])

    def finish(self, status: str, *, error: str | None, seconds: float) -> None:
        """Writes the final record of the run."""
        curated = self.figures.curate
        self._write(
            status=status,
            error=error,
            seconds=round(seconds, 2),
            gpu_hours=round(self.figures.gpu_seconds / 3600, 4),
            ended_at=datetime.now(UTC),
            set_id=curated.set_id if curated else None,
        )


@contextmanager
def open_run(flow: str, recipe: Recipe, home: Home) -> Iterator[RunContext]:
    """Locks the warehouse, and records the start and the end of the run, also of a failed one.

    Raises ShardError if another schema version wrote the warehouse, and BusyError if another run
    holds the lock. A process that is killed leaves its record at `running` and the lock free.
    """
    check_version(home)
    with lock(home):
        # A process that makes many runs reads a template that was edited between two of them.
        forget_templates()
        forget_criteria()
        began = time.monotonic()
        record = _first_record(flow, recipe)
        live = f"{home.root}/engines/{record.run_id}" if home.is_local else None
        context = RunContext(recipe, home, recipe.load_pack(), EnginePool(live, home), record)
        write_shard(home, RUNS, [record])
        try:
            yield context
        except BaseException as error:
            is_ended = _is_from_outside(error)
            status = "interrupted" if is_ended else "failed"
            fault = None if is_ended else f"{type(error).__name__}: {error}"
            try:
                context.finish(status, error=fault, seconds=time.monotonic() - began)
            except OSError as second:
                # The cause of the failure must not be hidden by a store that is away.
                error.add_note(f"its record could not be written: {second}")
            raise
        else:
            context.finish("completed", error=None, seconds=time.monotonic() - began)
        finally:
            context.engines.close()


def _is_from_outside(error: BaseException) -> bool:
    """Returns True for Ctrl-C and SIGTERM, which Prefect turns into an exception of its own."""
    from prefect.exceptions import TerminationSignal

    return isinstance(error, KeyboardInterrupt | TerminationSignal)


def _first_record(flow: str, recipe: Recipe) -> Run:
    """Returns the record of a run that has just started."""
    return Run(
        run_id=uuid.uuid4().hex,
        flow=flow,
        recipe=recipe.name,
        status="running",
        revision=0,
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
        git_commit=source_commit(),
        versions=json.dumps(package_versions()),
        resolved_recipe=recipe.model_dump_json(),
        figures="{}",
        error=None,
    )
