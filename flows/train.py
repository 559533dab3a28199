"""documents, examples → midtrained, SFT, DPO, RL checkpoint, each registered with its parent.

A reward model is trained from the checkpoint that RL begins from, and nothing begins from it.
A training that is there is not made again; one that was stopped goes on from its last checkpoint.
Fine-tuning begins from the student, midtrained or not, or continues from a checkpoint that learned
an earlier set.
"""

import contextvars
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import duckdb
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from pydantic import ValidationError

from flows.recipe import STUDENT_TRAININGS, SUITES, Recipe
from flows.run import RunContext, document_work, home_at, open_run
from flows.steps import (
    describe_asset,
    makes,
    prefect_progress,
    progress_bar,
    run_function,
    run_stage,
    say_how_to_look,
)
from tasks.data.assign import assigned
from tasks.data.documents import DocumentWork, choose_documents
from tasks.engine.chat_template import ChatTemplate
from tasks.engine.cluster import start_ray
from tasks.evaluation.suites import load_suites
from tasks.stage import StageFigures
from tasks.training.checkpoint import Parent, Training, plan_checkpoint
from tasks.training.dpo import DpoConfig, DpoTraining, Pairs, PairsConfig, choose_pairs
from tasks.training.midtrain import MidtrainConfig, MidtrainTraining
from tasks.training.reward_model import RewardModelConfig, RewardModelTraining
from tasks.training.rl import RlConfig, RlTraining, choose_prompts, require_unevaluated
from tasks.training.sft import SftConfig, SftTraining
from tasks.training.trainer import DataError, Job, TrainingConfig
from warehouse.catalog import find_checkpoints, latest_set, look_up
from warehouse.lineage import (
    choose_checkpoints,
    in_table_order,
    latest_fine_tuned,
    learned_set,
    lineage_of,
    students,
)
from warehouse.tables import Checkpoint

_CONFIGS: Mapping[str, type[TrainingConfig]] = {
    "midtrain": MidtrainConfig,
    "sft": SftConfig,
    "dpo": DpoConfig,
    "reward_model": RewardModelConfig,
    "rl": RlConfig,
}
"""The trainings that a recipe may have, in their order, by the names of its sections."""

_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Trained:
    """The outcome of a training run."""

    run_id: str
    home: str
    checkpoints: dict[str, Checkpoint]
    """By training, in their order."""
    num_trained: int
    """Checkpoints that this run trained; the others were there."""
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By training of this run, rows that were not learned, by reason."""
    sources: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By training of this run, rows that were learned, by source."""

    def notes(self, training: str) -> list[str]:
        """Returns what is told of a checkpoint beside its steps, line by line."""
        checkpoint = self.checkpoints[training]
        sources = self.sources.get(training, {})
        left_out = self.left_out.get(training, {})
        notes = [f"left out: {count} rows, {reason}" for reason, count in left_out.items()]
        if checkpoint.reason:
            notes.insert(0, f"ended early: {checkpoint.reason}")
        if training == "sft" and checkpoint.parent_id and "midtrain" not in self.checkpoints:
            learned = ", ".join(f"{count} of {source}" for source, count in sources.items())
            told = f" on {learned}" if learned else ""
            notes.insert(0, f"continued from checkpoint {checkpoint.parent_id[:12]}{told}")
        return notes


@flow(name="train", flow_run_name="train {recipe.name}", persist_result=False, log_prints=False)
def train(recipe: Recipe, home: str | None = None) -> Trained:
    """Trains what the recipe asks for, on the examples that are there."""
    recipe.require("train", *STUDENT_TRAININGS)
    with open_run("train", recipe, home_at(home)) as run:
        checkpoints: dict[str, Checkpoint] = {}
        if recipe.midtrain:
            work = _document_work(run, recipe.midtrain)
            write_documents(run, work)
            parent = _parent(run, checkpoints)
            checkpoints["midtrain"] = midtrain(run, recipe.midtrain, work, parent)
        if recipe.sft:
            checkpoints["sft"] = fine_tune(run, recipe.sft, _parent(run, checkpoints))
        if recipe.dpo:
            checkpoints["dpo"] = prefer(run, recipe.dpo, _parent(run, checkpoints))
        if recipe.rl:
            parent = _parent(run, checkpoints)
            if recipe.rl.reward.model and recipe.reward_model:
                checkpoints["reward_model"] = learn_rewards(run, recipe.reward_model, parent)
            reward_model = checkpoints.get("reward_model")
            checkpoints["rl"] = reinforce(run, recipe.rl, parent, reward_model)
        run.update(checkpoints=tuple(one.checkpoint_id for one in students(checkpoints.values())))
        create_markdown_artifact(key="checkpoints", markdown=_as_markdown(checkpoints))
        say_how_to_look(run)
        trainings = run.figures.trainings
        left_out = {name: figures.left_out for name, figures in trainings.items()}
        sources = {name: figures.sources for name, figures in trainings.items()}
        return Trained(run.id, run.home.url, checkpoints, len(trainings), left_out, sources)


def _parent(run: RunContext, checkpoints: Mapping[str, Checkpoint]) -> Parent:
    """Returns the run's latest checkpoint, or the student itself if there is none yet."""
    engine = run.recipe.student_engine
    if not checkpoints:
        return Parent(engine, run.version(engine))
    return Parent.of(list(checkpoints.values())[-1], engine=engine, home=run.home)


def _document_work(run: RunContext, config: MidtrainConfig) -> DocumentWork:
    """Returns the writing of the documents about the run's pack."""
    recipe = run.recipe
    model = "" if config.function else run.version(recipe.engine)
    work = document_work(recipe, config, run.pack, model=model, run_id=run.id)
    run.relations["wanted_documents"] = work.wanted
    run.note(documents=work.plan)
    return work


@makes("document", "documents")
def write_documents(run: RunContext, work: DocumentWork) -> StageFigures:
    """Makes the documents that are missing, by the generator or by the function of the recipe."""
    if work.config.function:
        return run_function(run, work)
    try:
        return run_stage(run, work, run.recipe.engine)
    finally:
        # The training that follows may need the engine's GPU.
        run.engines.close()


# One retry, here and below: Ray Train has replaced workers `workers.max_failures` times before.
@makes("midtrain", "checkpoints", of=("documents",), retries=1)
def midtrain(
    run: RunContext, config: MidtrainConfig, work: DocumentWork, parent: Parent
) -> Checkpoint:
    """Trains on the documents about the run's pack."""
    documents = choose_documents(run.warehouse(), work)
    return _make_checkpoint(run, MidtrainTraining.of(documents, config=config), parent)


@makes("sft", "checkpoints", of=("examples",), retries=1)
def fine_tune(run: RunContext, config: SftConfig, parent: Parent) -> Checkpoint:
    """Fine-tunes on the examples that the recipe's latest refresh froze."""
    set_id = latest_set(run.warehouse(), run.recipe.name)
    if set_id is None:
        raise DataError(
            f"recipe {run.recipe.name} has no examples in {run.home.url}; run precept refresh first"
        )
    start = start_of(run, config, set_id)
    learned = learned_set(run.warehouse(), start) if start else None
    if start:
        parent = Parent.of(start, engine=parent.engine, home=run.home)
    training = SftTraining.of(set_id, config=config, home=run.home, learned_set=learned)
    return _make_checkpoint(run, training, parent)


def start_of(run: RunContext, config: SftConfig, set_id: str) -> Checkpoint | None:
    """Returns the checkpoint that fine-tuning on a set continues from, or None for the student.

    Raises CheckpointError if the recipe names one that is not there, and DataError if it cannot be
    continued.
    """
    if config.start is None:
        return None
    connection = run.warehouse()
    base = run.version(run.recipe.student_engine)
    if config.start == "latest":
        return latest_fine_tuned(connection, run.recipe.name, base=base, set_id=set_id)
    [start] = choose_checkpoints(connection, [config.start])
    if start.status != "completed":
        raise DataError(
            f"sft.start: checkpoint {start.checkpoint_id} is {start.status}, not completed; "
            "finish its training, or name another"
        )
    if not lineage_of(connection, start).begins_from(base):
        raise DataError(
            f"sft.start: checkpoint {start.checkpoint_id} does not descend from the student "
            f"{base}; name another, or the model that it began from as the student"
        )
    return start


@makes("dpo", "checkpoints", "examples", of=("completions", "judgements"), retries=1)
def prefer(run: RunContext, config: DpoConfig, parent: Parent) -> Checkpoint:
    """Trains on the preference pairs of the recipe's latest refresh."""
    pairs = _pairs(run, config, parent)
    return _make_checkpoint(run, DpoTraining(config=config, pairs=pairs, home=run.home), parent)


@makes("reward_model", "checkpoints", "examples", of=("completions", "judgements"), retries=1)
def learn_rewards(run: RunContext, config: RewardModelConfig, parent: Parent) -> Checkpoint:
    """Trains a reward model on the answers of the preference pairs of the recipe's latest
    refresh."""
    pairs = _pairs(run, config, parent)
    training = RewardModelTraining(config=config, pairs=pairs, home=run.home)
    return _make_checkpoint(run, training, parent)


def _pairs(run: RunContext, config: PairsConfig, parent: Parent) -> Pairs:
    """Returns the preference pairs of the recipe's latest refresh."""
    return choose_pairs(
        run.warehouse(),
        ChatTemplate.of(parent.engine),
        config=config,
        generation_id=run.generation_id,
        judging_id=run.judging_id,
        run_id=run.id,
    )


@makes("rl", "checkpoints", "rollouts", "findings", of=("prompts", "specs"), retries=1)
def reinforce(
    run: RunContext, config: RlConfig, parent: Parent, reward_model: Checkpoint | None
) -> Checkpoint:
    """Refines by reinforcement learning, with a reward model or else the recipe's judge as the
    reward."""
    recipe = run.recipe
    # The prompts that the sources hold now: others may have left them since the refresh.
    run.relations["candidates"] = assigned(run.collect(), run.warehouse())
    prompts = choose_prompts(
        run.warehouse(),
        config,
        generation_id=run.generation_id,
        judging_id=run.judging_id,
    )
    if config.reward.function and recipe.evaluate:
        suites = load_suites(recipe.evaluate.suites, SUITES)
        require_unevaluated(prompts, [suite.source for suite in suites])
    training = RlTraining(
        config=config,
        prompts=prompts,
        specs=run.compile_specs({tuple(prompt.categories) for prompt in prompts}),
        judge=recipe.judge,
        judge_engine=recipe.judging_engine,
        judge_model=run.version(recipe.judging_engine),
        home=run.home,
        run_id=run.id,
        rule_ids=run.pack.rule_ids,
        reward_model=reward_model,
    )
    return _make_checkpoint(run, training, parent)


def _make_checkpoint(run: RunContext, training: Training, parent: Parent) -> Checkpoint:
    """Returns the checkpoint of a training; trains it if the warehouse lacks it."""
    plan = plan_checkpoint(run.warehouse(), training=training, parent=parent, home=run.home)
    if plan.finished:
        return plan.finished
    start_ray()
    job = plan.job()
    with following(job):
        checkpoint, figures = plan.make(job, run.record)
    describe_asset(
        run,
        "checkpoints",
        {"checkpoint_id": checkpoint.checkpoint_id, "stage": checkpoint.stage},
    )
    run.update(trainings={**run.figures.trainings, training.name: figures})
    return checkpoint


@contextmanager
def following(job: Job) -> Iterator[None]:
    """Shows the steps that the workers have done, while they train."""
    # An earlier attempt's count would be taken for that of this one.
    job.progress.unlink(missing_ok=True)
    ended = threading.Event()
    # Prefect's clients find their run in the context of the thread that calls them.
    context = contextvars.copy_context()
    follower = threading.Thread(target=context.run, args=(_follow, job, ended))
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()


def _follow(job: Job, ended: threading.Event) -> None:
    """Polls the workers' count of steps until the training has ended."""
    while not job.progress.exists():
        if ended.wait(_POLL_SECONDS):
            return
    step, total = json.loads(job.progress.read_text())
    with (
        prefect_progress(job.name) as publish,
        progress_bar(job.name, total, publish=publish) as advance,
    ):
        advance(step)
        is_last = False
        while not is_last:
            is_last = ended.wait(_POLL_SECONDS)
            now, _ = json.loads(job.progress.read_text())
            # Negative after a worker was replaced, which resumes from its latest checkpoint.
            advance(now - step)
            step = now


def latest_training(
    connection: duckdb.DuckDBPyConnection, recipe: Recipe, *, base: str | None = None
) -> list[str]:
    """Returns the ids of the students' checkpoints of a recipe's latest training, in order of
    training.

    A training counts if the recipe would train the same models today: an ablation trains under the
    same name with stages left out or other seeds, and an earlier training may have begun from
    another model. `base` is the version of the student; unset, it is looked up.
    """
    definitions = _definitions(recipe.model_dump(mode="json"))
    for row in look_up(connection, "trainings", recipe=recipe.name):
        if _definitions(json.loads(row["resolved_recipe"])) != definitions:
            continue
        ids = list(row["checkpoints"] or [])
        checkpoints = in_table_order(connection, find_checkpoints(connection, ids))
        base = base or recipe.student_engine.version
        if all(lineage_of(connection, one).begins_from(base) for one in checkpoints):
            # The order is that of their lineages: nothing rests on the order in the record.
            known = [checkpoint.checkpoint_id for checkpoint in checkpoints]
            return [*known, *(name for name in ids if name not in known)]
    return []


def _definitions(recipe: Mapping[str, Any]) -> dict[str, str | None]:
    """Returns what defines each training of a resolved recipe; None for what it does not train.

    A section that this version of Precept cannot read stands as it was written: it equals none.
    """
    definitions: dict[str, str | None] = {}
    for name, config in _CONFIGS.items():
        section = recipe.get(name)
        try:
            definitions[name] = config.model_validate(section).defining() if section else None
        except ValidationError:
            definitions[name] = json.dumps(section)
    return definitions


def _as_markdown(checkpoints: Mapping[str, Checkpoint]) -> str:
    lines = ["| training | checkpoint | steps | status | path |", "|--|--|--|--|--|"]
    for name, row in checkpoints.items():
        status = row.status + (f": {row.reason}" if row.reason else "")
        lines.append(f"| {name} | {row.checkpoint_id} | {row.num_steps} | {status} | {row.path} |")
    return "\n".join(lines)
