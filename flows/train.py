"""examples → SFT checkpoint → RL checkpoint, each registered with what it descends from.

A training that is there is not made again; one that was stopped goes on from its last checkpoint.
"""

import os

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")

import contextvars
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from flows.progress import prefect_progress, progress_bar
from flows.recipe import Recipe
from flows.run import RunContext, home_at, open_run
from tasks import train_dpo, train_rl, train_sft
from tasks.chats import Chats
from tasks.engine import PROJECT, EngineConfig
from tasks.stage import start_ray
from tasks.trainer import (
    Finished,
    Job,
    TrainError,
    TrainingConfig,
    WorkersLost,
    checkpoint_id,
    hand_over,
)
from warehouse.shards import write_shard
from warehouse.tables import CHECKPOINTS, Checkpoint, content_id

_LOOK_EVERY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training run came to: the checkpoint of each stage, in order."""

    run_id: str
    home: str
    checkpoints: dict[str, Checkpoint]
    num_trained: int
    """Stages that were really trained; the others were there."""


@dataclass(frozen=True, slots=True)
class Parent:
    """The model that a stage begins from."""

    engine: EngineConfig
    version: str
    checkpoint: Checkpoint | None

    @classmethod
    def of(cls, engine: EngineConfig, checkpoint: Checkpoint) -> "Parent":
        """A checkpoint, served and rendered as the model it descends from."""
        found = engine.model_copy(update={"model": checkpoint.path, "revision": None})
        return cls(found, checkpoint.model, checkpoint)


@flow(name="train", flow_run_name="train {recipe.name}", persist_result=False, log_prints=False)
def train(recipe: Recipe, home: str | None = None) -> Trained:
    """Trains what the recipe asks for on the examples that are there."""
    place = home_at(home)
    if not place.is_local:
        raise TrainError(
            f"training needs a warehouse on a disk that all nodes see, not {place.url}"
        )
    if not (recipe.sft or recipe.dpo or recipe.rl):
        raise TrainError(
            f"recipe {recipe.name} trains nothing; give it a section [sft], [dpo] or [rl]"
        )
    with open_run("train", recipe, place) as run:
        parent = Parent(recipe.engine, run.version(recipe.engine), None)
        made: dict[str, Checkpoint] = {}
        stages: dict[str, Any] = {"sft": fine_tune, "dpo": prefer, "rl": reinforce}
        for name, stage in stages.items():
            if getattr(recipe, name) is not None:
                made[name] = stage(run, parent)
                parent = Parent.of(recipe.engine, made[name])
        create_markdown_artifact(key="checkpoints", markdown=_as_markdown(made))
        return Trained(run.id, run.home.url, made, len(run.figures))


def _workers_were_lost(task: Any, run: Any, state: State[Any]) -> bool:
    """A training whose workers died goes on from its last checkpoint; other faults stay."""
    return isinstance(state.result(raise_on_failure=False), WorkersLost)


AGAIN: Any = {
    "retries": 1,
    "retry_delay_seconds": 10,
    "retry_condition_fn": _workers_were_lost,
}


@task(name="sft", cache_policy=NO_CACHE, **AGAIN)
def fine_tune(run: RunContext, parent: Parent) -> Checkpoint:
    """Fine-tunes on the examples that the recipe's last refresh froze."""
    config = run.recipe.sft
    assert config is not None
    capability = _found(config.capability.path) if config.capability else None
    set_id = _latest_set(run)
    data = train_sft.fingerprint(config, set_id, capability)

    def make(job: Job) -> tuple[Finished, int]:
        tokenised = train_sft.tokenise(
            run.warehouse(),
            _chats(parent.engine),
            config=config,
            set_id=set_id,
            capability=capability,
            folder=Path(job.folder) / "data",
        )
        run.figures.setdefault("sft", {})["data"] = {
            "rows": tokenised.num_rows,
            "tokens": tokenised.num_tokens,
            "sources": tokenised.sources,
            "left_out": tokenised.left_out,
        }
        return train_sft.train(job, tokenised), tokenised.num_rows

    return _checkpoint(run, "sft", config, parent, data, make, best=("loss", "min"), set_id=set_id)


@task(name="dpo", cache_policy=NO_CACHE, **AGAIN)
def prefer(run: RunContext, parent: Parent) -> Checkpoint:
    """Trains on the preference pairs of the recipe's last refresh."""
    recipe, config = run.recipe, run.recipe.dpo
    assert config is not None
    pairs = train_dpo.choose_pairs(
        run.warehouse(),
        _chats(parent.engine),
        config=config,
        generation_id=recipe.generate.generation_id(run.version(recipe.engine)),
        judging_id=recipe.judge.judging_id(run.version(recipe.judging_engine)),
    )

    def make(job: Job) -> tuple[Finished, int]:
        return train_dpo.train(job, pairs.rows), len(pairs.rows)

    return _checkpoint(
        run, "dpo", config, parent, pairs.fingerprint, make, best=("rewards/margins", "max")
    )


@task(name="rl", cache_policy=NO_CACHE, **AGAIN)
def reinforce(run: RunContext, parent: Parent) -> Checkpoint:
    """Refines by reinforcement learning with the recipe's judge as the reward."""
    recipe, config = run.recipe, run.recipe.rl
    assert config is not None
    if recipe.engine.reasoning_parser:
        raise TrainError(
            "rl needs a model whose reasoning stands between <think> tags, and "
            f"engine.reasoning_parser is {recipe.engine.reasoning_parser!r}; take rl out"
        )
    names = [source.name for source in recipe.sources]
    prompts = train_rl.choose_prompts(run.warehouse(), config, names)
    specs = run.specs({tuple(prompt.categories) for prompt in prompts})
    judge = run.version(recipe.judging_engine)
    data = content_id(
        recipe.judge.judging_id(judge),
        *(f"{one.prompt_id} {specs['+'.join(one.categories)].id} {one.kind}" for one in prompts),
    )

    def make(job: Job) -> tuple[Finished, int]:
        judges = train_rl.Judges.start(
            recipe.judging_engine.model_copy(update={"replicas": config.judges}),
            recipe.judge,
            {spec.id: spec for spec in specs.values()},
            num_votes=config.reward.samples,
            name=job.checkpoint_id,
        )
        try:
            finished = train_rl.train(
                job, prompts, specs=specs, judges=judges.handles, home=run.home, run_id=run.id
            )
        finally:
            judges.stop()
        return finished, len(prompts)

    return _checkpoint(run, "rl", config, parent, data, make, best=("reward", "max"))


def _checkpoint(
    run: RunContext,
    stage: str,
    config: TrainingConfig,
    parent: Parent,
    data: str,
    make: Callable[[Job], tuple[Finished, int]],
    *,
    best: Any,
    set_id: str | None = None,
) -> Checkpoint:
    """The checkpoint of a stage: the one that is there, or a new one."""
    name = checkpoint_id(stage, config, data, parent.version)
    known = _known(run, name)
    path = Path(run.home.root) / "checkpoints" / name
    if known and known.status == "completed" and (path / "config.json").is_file():
        return known
    start_ray(os.environ.get("RAY_ADDRESS"))
    folder = Path(run.home.root) / "training" / name
    folder.mkdir(parents=True, exist_ok=True)
    job = Job(
        stage=stage,
        checkpoint_id=name,
        folder=str(folder),
        model=parent.engine.model_path,
        revision=parent.engine.revision,
        chat_template_kwargs=parent.engine.chat_template_kwargs,
        config=config,
        best=best,
    )
    began = datetime.now(UTC)
    with following(job):
        finished, num_rows = make(job)
    hand_over(job, path)
    now = datetime.now(UTC)
    engine = parent.engine.model_copy(update={"model": str(path), "revision": None})
    row = Checkpoint(
        checkpoint_id=name,
        revision=known.revision + 1 if known else 0,
        stage=stage,
        status="completed" if finished.completed else "stopped",
        reason=finished.stopped,
        model=engine.version,
        parent=parent.version,
        parent_id=parent.checkpoint.checkpoint_id if parent.checkpoint else None,
        set_id=set_id,
        data_fingerprint=data,
        num_rows=num_rows,
        num_steps=finished.num_steps,
        recipe=run.recipe.name,
        run_id=run.id,
        git_commit=run.record.git_commit,
        seconds=round((now - began).total_seconds(), 1),
        created_at=now,
        path=str(path),
        config=config.model_dump_json(),
        metrics=json.dumps({"last": finished.metrics, "log": finished.log}),
    )
    write_shard(run.home, CHECKPOINTS, [row])
    gpus = config.workers.num_workers if config.workers.use_gpu else 0
    figures = {"steps": finished.num_steps, "seconds": row.seconds, "gpus": gpus}
    run.figures.setdefault(stage, {}).update(figures)
    return row


@contextmanager
def following(job: Job) -> Iterator[None]:
    """Shows the steps that the workers say they have done."""
    job.progress.unlink(missing_ok=True)
    done = threading.Event()

    def follow() -> None:
        while not job.progress.exists():
            if done.wait(_LOOK_EVERY_SECONDS):
                return
        step, total = json.loads(job.progress.read_text())
        with (
            prefect_progress(job.stage) as publish,
            progress_bar(job.stage, total, publish=publish) as advance,
        ):
            advance(step)
            while not done.wait(_LOOK_EVERY_SECONDS):
                now, _ = json.loads(job.progress.read_text())
                # A worker that was replaced begins at its last checkpoint.
                advance(now - step)
                step = now
            advance(json.loads(job.progress.read_text())[0] - step)

    follower = threading.Thread(target=contextvars.copy_context().run, args=(follow,))
    follower.start()
    try:
        yield
    finally:
        done.set()
        follower.join()


def _known(run: RunContext, name: str) -> Checkpoint | None:
    rows = (
        run.warehouse()
        .sql("SELECT * FROM checkpoints WHERE checkpoint_id = $name", params={"name": name})
        .to_arrow_table()
        .to_pylist()
    )
    return Checkpoint(**rows[0]) if rows else None


def _latest_set(run: RunContext) -> str:
    """The set that the recipe's last refresh froze; raises TrainError where there is none."""
    rows = (
        run.warehouse()
        .execute(
            "SELECT set_id FROM runs WHERE recipe = ? AND set_id IS NOT NULL "
            "ORDER BY started_at DESC LIMIT 1",
            [run.recipe.name],
        )
        .fetchall()
    )
    if not rows:
        raise TrainError(
            f"recipe {run.recipe.name} has no examples in {run.home.url}; run precept refresh first"
        )
    return str(rows[0][0])


def _found(path: str) -> str:
    """A file relative to the working folder or to Precept's own."""
    for base in (Path.cwd(), PROJECT):
        if (base / path).is_file():
            return str(base / path)
    raise TrainError(f"sft.capability.path: no file {path}; give a JSONL or Parquet file of chats")


def _chats(engine: EngineConfig) -> Chats:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(engine.model_path, revision=engine.revision)
    return Chats(tokenizer, chat_template_kwargs=engine.chat_template_kwargs)


def _as_markdown(made: dict[str, Checkpoint]) -> str:
    lines = ["| stage | checkpoint | steps | status | path |", "|--|--|--|--|--|"]
    for stage, one in made.items():
        status = one.status + (f": {one.reason}" if one.reason else "")
        lines.append(f"| {stage} | {one.checkpoint_id} | {one.num_steps} | {status} | {one.path} |")
    return "\n".join(lines)
