"""examples → SFT checkpoint → RL checkpoint, each registered with what it descends from.

A training that is there is not made again; one that was stopped goes on from its last checkpoint.
"""

import contextvars
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.recipe import Recipe, RecipeError
from flows.run import RunContext, home_at, open_run
from flows.steps import describe_asset, makes, prefect_progress, progress_bar
from specs.policy import spec_key
from tasks.data import collect as collecting
from tasks.engine.chat_template import ChatTemplate
from tasks.engine.cluster import start_ray
from tasks.engine.requests import EngineConfig
from tasks.paths import PROJECT
from tasks.training import dpo as train_dpo
from tasks.training import rl as train_rl
from tasks.training import sft as train_sft
from tasks.training.judges import Judges
from tasks.training.reward import reward_id
from tasks.training.trainer import (
    DataError,
    Finished,
    Job,
    TrainingConfig,
    TrainingFigures,
    checkpoint_id,
    hand_over,
    tidy,
)
from warehouse.catalog import find_checkpoints, latest_set, look_up
from warehouse.home import Home
from warehouse.models import fetch_folder, has_folder, keep_folder, scratch
from warehouse.shards import write_shard
from warehouse.tables import CHECKPOINTS, EXAMPLES, Checkpoint, content_id

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
    def of(cls, engine: EngineConfig, checkpoint: Checkpoint, home: Home) -> "Parent":
        """A checkpoint, served and rendered as the model it descends from."""
        found = engine.with_model(str(fetch_folder(home, checkpoint.path)))
        return cls(found, checkpoint.model, checkpoint)


@flow(name="train", flow_run_name="train {recipe.name}", persist_result=False, log_prints=False)
def train(recipe: Recipe, home: str | None = None) -> Trained:
    """Trains what the recipe asks for on the examples that are there."""
    if not (recipe.sft or recipe.dpo or recipe.rl):
        raise RecipeError(
            f"recipe {recipe.name} trains nothing; give it a section [sft], [dpo] or [rl]"
        )
    with open_run("train", recipe, home_at(home)) as run:
        parent = Parent(recipe.engine, run.version(recipe.engine), None)
        made: dict[str, Checkpoint] = {}
        stages: dict[str, Any] = {"sft": fine_tune, "dpo": prefer, "rl": reinforce}
        for name, stage in stages.items():
            if getattr(recipe, name) is not None:
                made[name] = stage(run, parent)
                parent = Parent.of(recipe.engine, made[name], run.home)
        create_markdown_artifact(key="checkpoints", markdown=_as_markdown(made))
        run.update(checkpoints=tuple(one.checkpoint_id for one in made.values()))
        num_trained = len(run.figures.trainings)
        return Trained(run.id, run.home.url, made, num_trained)


def latest_training(connection: duckdb.DuckDBPyConnection, recipe: Recipe) -> list[str]:
    """Ids of the checkpoints of the latest training of a recipe as it is now, in order."""
    now = recipe.model_dump(mode="json")
    for row in look_up(connection, "trainings", recipe=recipe.name):
        then = json.loads(row["resolved_recipe"])
        # An ablation trains by the same name what leaves stages out or has another seed.
        if all(then.get(stage) == now[stage] for stage in ("sft", "dpo", "rl")):
            return list(row["checkpoints"] or [])
    return []


# Ray Train has replaced workers workers.max_failures times before a training is tried again.
@makes("sft", "checkpoints", of=("examples",), retries=1)
def fine_tune(run: RunContext, parent: Parent) -> Checkpoint:
    """Fine-tunes on the examples that the recipe's last refresh froze."""
    config = run.recipe.sft
    assert config is not None
    capability = _found(config.capability.path) if config.capability else None
    set_id = latest_set(run.warehouse(), run.recipe.name)
    if set_id is None:
        raise DataError(
            f"recipe {run.recipe.name} has no examples in {run.home.url}; run precept refresh first"
        )
    data = train_sft.fingerprint(config, set_id, capability)

    def make(job: Job) -> tuple[Finished, int]:
        tokenised = train_sft.tokenise(
            run.warehouse(),
            ChatTemplate.of(parent.engine),
            config=config,
            set_id=set_id,
            capability=capability,
            folder=Path(job.folder) / "data",
        )
        return train_sft.train(job, tokenised), tokenised.num_rows

    return _checkpoint(run, "sft", config, parent, data, make, best=("loss", "min"), set_id=set_id)


@makes("dpo", "checkpoints", "examples", of=("completions", "judgements"), retries=1)
def prefer(run: RunContext, parent: Parent) -> Checkpoint:
    """Trains on the preference pairs of the recipe's last refresh."""
    recipe, config = run.recipe, run.recipe.dpo
    assert config is not None
    pairs = train_dpo.choose_pairs(
        run.warehouse(),
        ChatTemplate.of(parent.engine),
        config=config,
        generation_id=recipe.generate.generation_id(run.version(recipe.engine)),
        judging_id=recipe.judge.judging_id(run.version(recipe.judging_engine)),
        run_id=run.id,
    )

    def make(job: Job) -> tuple[Finished, int]:
        write_shard(run.home, EXAMPLES, pairs.members)
        return train_dpo.train(job, pairs.rows), len(pairs.rows)

    best = ("rewards/margins", "max")
    return _checkpoint(
        run, "dpo", config, parent, pairs.set_id, make, best=best, set_id=pairs.set_id
    )


@makes("rl", "checkpoints", "rollouts", of=("prompts", "specs"), retries=1)
def reinforce(run: RunContext, parent: Parent) -> Checkpoint:
    """Refines by reinforcement learning with the recipe's judge as the reward."""
    recipe, config = run.recipe, run.recipe.rl
    assert config is not None
    if recipe.engine.reasoning_parser:
        raise RecipeError(
            "rl needs a model whose reasoning stands between <think> tags, and "
            f"engine.reasoning_parser is {recipe.engine.reasoning_parser!r}; take rl out"
        )
    judge = run.version(recipe.judging_engine)
    # What the sources hold now: prompts that left them, or came with others, are not asked.
    collected = collecting.collect(
        recipe.sources,
        config=recipe.collect,
        pack_categories=list(run.pack.policies),
        home=run.home,
        connection=run.warehouse(),
    )
    warehouse = run.warehouse()
    warehouse.register("asked", collecting.assigned(collected, run.warehouse()))
    prompts = train_rl.choose_prompts(
        warehouse,
        config,
        generation_id=recipe.generate.generation_id(run.version(recipe.engine)),
        judging_id=recipe.judge.judging_id(judge),
    )
    specs = run.compile_specs({tuple(prompt.categories) for prompt in prompts})
    data = content_id(
        reward_id(recipe.judge, judge),
        *(f"{one.prompt_id} {specs[spec_key(one.categories)].id} {one.kind}" for one in prompts),
    )

    def make(job: Job) -> tuple[Finished, int]:
        judges = Judges.start(
            recipe.judging_engine.model_copy(update={"replicas": config.workers.judges}),
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
    known = next(iter(find_checkpoints(run.warehouse(), [name])), None)
    if known and known.status != "stopped" and has_folder(run.home, known.path):
        return known
    start_ray()
    revision = known.revision + 1 if known else 0
    # One that goes on is another model, and must not pass for the one that was stopped.
    path = f"models/{name}" + (f"-{revision}" if revision else "")
    place = scratch(run.home) / path
    folder = scratch(run.home) / "training" / name
    folder.mkdir(parents=True, exist_ok=True)
    job = Job(
        stage=stage,
        checkpoint_id=name,
        folder=str(folder),
        model=parent.engine.model_path,
        revision=parent.engine.revision,
        chat_template_kwargs=parent.engine.chat_template_kwargs,
        end_ids=ChatTemplate.of(parent.engine).end_ids,
        config=config,
        best=best,
    )
    began = datetime.now(UTC)
    with following(job):
        finished, num_rows = make(job)
    hand_over(job, place)
    keep_folder(run.home, path)
    now = datetime.now(UTC)
    row = Checkpoint(
        checkpoint_id=name,
        revision=revision,
        stage=stage,
        status=finished.status,
        reason=finished.stopped,
        model=parent.engine.with_model(str(place)).version,
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
        path=path,
        config=config.model_dump_json(),
        metrics=json.dumps({"last": finished.metrics, "log": finished.log}),
    )
    write_shard(run.home, CHECKPOINTS, [row])
    describe_asset(run, "checkpoints", {"checkpoint_id": name, "stage": stage})
    if finished.status != "stopped":
        tidy(job)
    figures = TrainingFigures(
        num_steps=finished.num_steps,
        seconds=row.seconds,
        num_gpus=_gpus(run, config),
        num_rows=num_rows,
    )
    run.update(trainings={**run.figures.trainings, stage: figures})
    return row


def _gpus(run: RunContext, config: TrainingConfig) -> int:
    """GPUs of the workers and, in reinforcement learning, of the judges."""
    workers, judge = config.workers, run.recipe.judging_engine
    judges = getattr(workers, "judges", 0) * judge.tensor_parallel_size if judge.use_gpu else 0
    return judges + (workers.num_workers if workers.use_gpu else 0)


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


def _found(path: str) -> str:
    """A file relative to the working folder or to Precept's own."""
    for base in (Path.cwd(), PROJECT):
        if (base / path).is_file():
            return str(base / path)
    raise DataError(f"sft.capability.path: no file {path}; give a JSONL or Parquet file of chats")


def _as_markdown(made: dict[str, Checkpoint]) -> str:
    lines = ["| stage | checkpoint | steps | status | path |", "|--|--|--|--|--|"]
    for stage, one in made.items():
        status = one.status + (f": {one.reason}" if one.reason else "")
        lines.append(f"| {stage} | {one.checkpoint_id} | {one.num_steps} | {status} | {one.path} |")
    return "\n".join(lines)
