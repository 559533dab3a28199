"""checkpoints ← trainings: each trained once, kept whole, and registered with its parent.

A checkpoint's id is the hash of what defines it: the training's name, configuration and data, and
the model that it begins from. One that is there is not trained again; one that was stopped goes on
from where it ended, as a new revision with a folder of its own.
"""

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol

import duckdb

from tasks.engine.chat_template import ChatTemplate
from tasks.engine.requests import EngineConfig
from tasks.training.generation_config import require_loadable
from tasks.training.tracking import Tracking
from tasks.training.trainer import (
    BestBy,
    DataFigures,
    Finished,
    Job,
    TrainError,
    TrainingConfig,
    TrainingFigures,
)
from warehouse.catalog import find_checkpoints
from warehouse.home import Home
from warehouse.models import fetch_folder, has_folder, keep_folder, scratch
from warehouse.shards import write_shard
from warehouse.tables import CHECKPOINTS, Checkpoint, Run, content_id


class TrainingOutcome(NamedTuple):
    """The end of a training, and counts of the data that it learned from."""

    finished: Finished
    data: DataFigures


class Training(Protocol):
    """A training of one checkpoint: what defines it, and the verb that makes it."""

    @property
    def name(self) -> str:
        """`midtrain`, `sft`, `dpo`, `reward_model` or `rl`: its section in a recipe."""
        ...

    @property
    def config(self) -> TrainingConfig: ...

    @property
    def fingerprint(self) -> str:
        """Hash of the data that it learns from."""
        ...

    @property
    def set_id(self) -> str | None:
        """The frozen set of examples that it learns from, if it learns from one."""
        ...

    @property
    def best(self) -> BestBy: ...

    @property
    def num_gpus(self) -> float:
        """GPUs that it takes altogether."""
        ...

    def train(self, job: Job) -> TrainingOutcome:
        """Trains until the workers leave the model; resumes from the job's latest checkpoint."""
        ...


@dataclass(frozen=True, slots=True)
class Parent:
    """The model that a training begins from."""

    engine: EngineConfig
    """Serves and renders the model."""
    version: str
    """`name@revision`, as on the rows that the model makes."""
    checkpoint_id: str | None = None
    """Unset: the model comes from elsewhere."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, *, engine: EngineConfig, home: Home) -> "Parent":
        """Returns a checkpoint, to be served and rendered as the model it descends from."""
        folder = fetch_folder(home, checkpoint.path)
        return cls(engine.with_model(str(folder)), checkpoint.model, checkpoint.checkpoint_id)


def checkpoint_id(name: str, config: TrainingConfig, fingerprint: str, parent: str) -> str:
    """Returns the id of what a training makes; `parent` is the parent's version."""
    return content_id(name, config.defining(), fingerprint, parent)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointPlan:
    """A checkpoint that a run wants: the training that makes it, and its place."""

    checkpoint_id: str
    fingerprint: str
    """The training's, when the id was made of it."""
    training: Training
    parent: Parent
    home: Home
    previous: Checkpoint | None
    """The latest revision that the warehouse has of the checkpoint."""

    @property
    def finished(self) -> Checkpoint | None:
        """The checkpoint, if nothing is left to do for it."""
        previous = self.previous
        if previous is None or previous.status == "stopped":
            return None
        return previous if has_folder(self.home, previous.path) else None

    @property
    def revision(self) -> int:
        return self.previous.revision + 1 if self.previous else 0

    @property
    def path(self) -> str:
        """The folder of the model, from the home on."""
        # A training that went on makes another model, which must not pass for the stopped one.
        return f"models/{self.checkpoint_id}" + (f"-{self.revision}" if self.revision else "")

    def job(self) -> Job:
        """Returns the training as its workers know it; makes its folder.

        Raises ChatError if the parent's chats cannot be learned, GenerationConfigError if the
        parent cannot be loaded because of its generation configuration, and TrackerError if the
        tracker is not installed.
        """
        engine = self.parent.engine
        require_loadable(engine.model_path, engine.revision)
        folder = scratch(self.home) / "training" / self.checkpoint_id
        folder.mkdir(parents=True, exist_ok=True)
        return Job(
            name=self.training.name,
            checkpoint_id=self.checkpoint_id,
            folder=str(folder),
            model=engine.model_path,
            revision=engine.revision,
            chat_template_kwargs=engine.chat_template_kwargs,
            end_ids=ChatTemplate.of(engine).end_ids,
            config=self.training.config,
            best=self.training.best,
            tracking=Tracking.of(
                self.training.config.report_to,
                training=self.training.name,
                folder=scratch(self.home),
            ),
        )

    def make(self, job: Job, run: Run) -> tuple[Checkpoint, TrainingFigures]:
        """Trains, keeps the model and registers it as a checkpoint of the run."""
        began = datetime.now(UTC)
        outcome = self.training.train(job)
        _hand_over(job, scratch(self.home) / self.path)
        keep_folder(self.home, self.path)
        seconds = round((datetime.now(UTC) - began).total_seconds(), 1)
        checkpoint = self._row(outcome, run, seconds)
        write_shard(self.home, CHECKPOINTS, [checkpoint])
        if checkpoint.status != "stopped":
            _tidy(job)
        data = outcome.data
        return checkpoint, TrainingFigures(
            num_steps=checkpoint.num_steps,
            seconds=seconds,
            num_gpus=self.training.num_gpus,
            num_rows=data.num_rows,
            num_tokens=data.num_tokens,
            sources=data.sources,
            left_out=data.left_out,
        )

    def _row(self, outcome: TrainingOutcome, run: Run, seconds: float) -> Checkpoint:
        training, parent, finished = self.training, self.parent, outcome.finished
        place = scratch(self.home) / self.path
        return Checkpoint(
            checkpoint_id=self.checkpoint_id,
            revision=self.revision,
            stage=training.name,
            status=finished.status,
            reason=finished.reason,
            model=parent.engine.with_model(str(place)).version,
            parent=parent.version,
            parent_id=parent.checkpoint_id,
            set_id=training.set_id,
            data_fingerprint=self.fingerprint,
            num_rows=outcome.data.num_rows,
            num_steps=finished.num_steps,
            recipe=run.recipe,
            run_id=run.run_id,
            git_commit=run.git_commit,
            seconds=seconds,
            created_at=datetime.now(UTC),
            path=self.path,
            config=training.config.model_dump_json(),
            metrics=json.dumps({"last": finished.metrics, "log": finished.log}),
        )


def plan_checkpoint(
    connection: duckdb.DuckDBPyConnection, *, training: Training, parent: Parent, home: Home
) -> CheckpointPlan:
    """Returns the plan of what a training makes, with what the warehouse has of it."""
    fingerprint = training.fingerprint
    name = checkpoint_id(training.name, training.config, fingerprint, parent.version)
    checkpoints = find_checkpoints(connection, [name])
    return CheckpointPlan(
        checkpoint_id=name,
        fingerprint=fingerprint,
        training=training,
        parent=parent,
        home=home,
        previous=checkpoints[0] if checkpoints else None,
    )


def _hand_over(job: Job, place: Path) -> None:
    """Moves the finished model to where it stays, in one step."""
    if not (job.finished / "config.json").is_file():
        raise TrainError(
            f"{job.name} left no whole model in {job.finished}; run the same command again"
        )
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        shutil.rmtree(place)
    job.finished.rename(place)


def _tidy(job: Job) -> None:
    """Removes what only a resumed training needs; Ray's latest and best checkpoint stay."""
    for name in ("data", "cache", "trainer"):
        shutil.rmtree(Path(job.folder) / name, ignore_errors=True)
