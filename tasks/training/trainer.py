"""A TRL trainer in the workers of Ray Train: it resumes where it stopped and hands its model over.

A training has a folder of its own under the warehouse. Ray Train keeps the last and the best of its
checkpoints there, and a worker that dies is replaced and goes on from the last one; so does the
whole training when it is called again. The finished model appears in one step, or not at all.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from tasks import Config
from warehouse.tables import content_id

_HOW = ("fsdp", "deepspeed", "gradient_checkpointing", "dataloader_", "vllm_", "ddp_", "torch_")
"""Arguments of a trainer that say how it runs, by how their names begin."""


class DataError(ValueError):
    """There is nothing to learn from, or what there is must not be learned."""


class TrainError(RuntimeError):
    """A training that could not go on; its last checkpoint is kept."""


class WorkersLost(TrainError):
    """A training whose workers failed more often than they may; it can go on."""


class LoraConfig(Config):
    """Low-rank adapters instead of all weights; they are merged at the end."""

    rank: int = Field(32, gt=0)
    """Rank of the adapters."""
    alpha: int = Field(64, gt=0)
    """Scale of the adapters: alpha over rank."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Share of the adapters' input that is dropped."""
    targets: str | list[str] = "all-linear"
    """Modules that get an adapter, by name."""


class WorkersConfig(Config):
    """What a training runs on; none of it changes what is learned."""

    num_workers: int = Field(1, gt=0)
    """Workers that share each step."""
    use_gpu: bool = True
    """Whether each worker has a GPU."""
    num_cpus: float = Field(1.0, gt=0)
    """Processors that Ray sets aside for each worker."""
    num_threads: int | None = Field(None, gt=0)
    """Threads that a worker computes with where there is no GPU; none: as many as num_cpus."""
    rows_at_once: int = Field(4, gt=0)
    """Rows in one pass of a worker; batch_size is reached by accumulating gradients."""
    bf16: bool = True
    """Compute in bfloat16; weights stay as they are."""
    save_steps: int = Field(50, gt=0)
    """Steps from one checkpoint to the next."""
    max_failures: int = Field(3, ge=0)
    """Workers that may die before the training gives up; called again, it goes on."""
    arguments: dict[str, bool | int | float | str] = {}
    """Further arguments of TRL that say how it runs: fsdp…, deepspeed…, vllm_…, dataloader_…"""

    @model_validator(mode="after")
    def _check_arguments(self) -> "WorkersConfig":
        for name in self.arguments:
            if not name.startswith(_HOW):
                raise ValueError(
                    f"workers.arguments.{name} is none that only says how a training runs (they "
                    f"begin with {', '.join(_HOW)}); what defines the model has a key of its own"
                )
        return self


class TrainingConfig(Config):
    """What every training has: all of it defines the model."""

    learning_rate: float = Field(1e-5, gt=0)
    """Highest learning rate."""
    batch_size: int = Field(64, gt=0)
    """Rows that one step learns from, over all workers."""
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    """How the learning rate falls."""
    warmup_share: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    """Decay of the weights."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    seed: int = 1
    """Seed of the order of rows and of sampling."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights while they are trained; bfloat16 is for adapters."""
    lora: LoraConfig | None = None
    """Adapters; none: all weights are trained."""
    workers: WorkersConfig = WorkersConfig()
    """What the training runs on."""

    @model_validator(mode="after")
    def _check_training(self) -> "TrainingConfig":
        workers = self.workers
        at_once = workers.num_workers * workers.rows_at_once
        if self.batch_size % at_once:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of {at_once}, which "
                f"{workers.num_workers} workers take at once; change batch_size or "
                "workers.rows_at_once"
            )
        if self.dtype == "bfloat16" and self.lora is None:
            raise ValueError("dtype bfloat16 loses small updates of all weights; give a lora too")
        if self.lora and any(name.startswith(("fsdp", "deep")) for name in workers.arguments):
            raise ValueError("lora with fsdp or deepspeed cannot be merged; take one of them out")
        return self

    def defining(self) -> str:
        """All that defines the model, as JSON; not what it runs on, nor where data lies."""
        return self.model_dump_json(exclude={"workers": True, "capability": {"path"}})


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training as its workers know it."""

    stage: str
    checkpoint_id: str
    folder: str
    """Absolute, and the same on every node."""
    model: str
    """The folder or id of the model that it begins from."""
    revision: str | None
    chat_template_kwargs: Mapping[str, bool | str]
    end_ids: frozenset[int]
    """Tokens that end a turn."""
    config: TrainingConfig
    best: tuple[str, Literal["min", "max"]]
    """The metric by which the best checkpoint is kept."""

    @property
    def workers(self) -> WorkersConfig:
        return self.config.workers

    @property
    def progress(self) -> Path:
        """Where the first worker writes how many steps are done, and of how many."""
        return Path(self.folder) / "progress.json"

    @property
    def finished(self) -> Path:
        """Where the workers leave the model, until it is handed over."""
        return Path(self.folder) / "model"

    def arguments(self) -> dict[str, Any]:
        """Arguments that the configurations of all TRL trainers share."""
        config, workers = self.config, self.workers
        at_once = workers.num_workers * workers.rows_at_once
        return {
            "output_dir": str(Path(self.folder) / "trainer"),
            "learning_rate": config.learning_rate,
            "per_device_train_batch_size": workers.rows_at_once,
            "gradient_accumulation_steps": config.batch_size // at_once,
            "lr_scheduler_type": config.schedule,
            "warmup_steps": config.warmup_share,
            "weight_decay": config.weight_decay,
            "max_grad_norm": config.max_grad_norm,
            "model_init_kwargs": {"revision": self.revision, "dtype": config.dtype},
            "seed": config.seed,
            "bf16": workers.bf16,
            "use_cpu": not workers.use_gpu,
            "gradient_checkpointing": workers.use_gpu,
            "save_strategy": "steps",
            "save_steps": workers.save_steps,
            "save_total_limit": 1,
            "report_to": "none",
            "disable_tqdm": True,
            "ddp_find_unused_parameters": False,
            **workers.arguments,
        }

    def adapters(self) -> Any:
        """The configuration of the adapters for PEFT, or None."""
        lora = self.config.lora
        if lora is None:
            return None
        import peft

        return peft.LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=lora.targets,
            task_type="CAUSAL_LM",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a training came to."""

    num_steps: int
    stopped: str | None
    """Why it ended before its last step, if it did."""
    status: str
    """`completed`; `stopped`, and can go on; or `collapsed`, and is not to."""
    metrics: dict[str, float]
    """The last of each metric."""
    log: list[dict[str, float]] = field(default_factory=list)
    """All metrics, step by step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFigures:
    """Steps, seconds and data of a training in one run."""

    num_steps: int
    seconds: float
    num_gpus: int
    """GPUs of the workers and, in reinforcement learning, of the judges."""
    num_rows: int
    num_tokens: int | None = None
    """Tokens of the data, if it was tokenised before."""
    sources: Mapping[str, int] = field(default_factory=dict)
    """Rows by source."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Rows that cannot be learned whole, by reason."""

    @property
    def gpu_seconds(self) -> float:
        """GPUs times seconds."""
        return self.seconds * self.num_gpus


def checkpoint_id(stage: str, config: TrainingConfig, data: str, parent: str) -> str:
    """What names a training: its stage, configuration, data and parent."""
    return content_id(stage, config.defining(), data, parent)


def fit(loop: Callable[[dict[str, Any]], None], job: Job, **settings: Any) -> Finished:
    """Runs `loop({"job": job, **settings})` in the workers until the model is handed over.

    Raises WorkersLost where the workers fail more often than they may, and TrainError where the
    cluster has no place for them or they refuse what they are to do.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    _check_room(job)
    metric, order = job.best
    trainer = TorchTrainer(
        loop,
        train_loop_config={"job": job, **settings},
        scaling_config=ScalingConfig(
            num_workers=job.workers.num_workers,
            use_gpu=job.workers.use_gpu,
            resources_per_worker=_resources(job.workers),
        ),
        run_config=RunConfig(
            # Ray Train resumes what has the same name in the same place.
            name=job.checkpoint_id,
            storage_path=str(Path(job.folder) / "ray"),
            failure_config=FailureConfig(max_failures=job.workers.max_failures),
            checkpoint_config=CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute=metric, checkpoint_score_order=order
            ),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        fault = _innermost(error)
        kind = TrainError if isinstance(fault, TrainError | ValueError | TypeError) else WorkersLost
        lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
        raise kind(
            f"{job.stage} stopped: {type(fault).__name__}: {lines[-1] if lines else 'no message'}; "
            "its last checkpoint is kept, mend the cause and run the same command again"
        ) from error
    return Finished(**json.loads((job.finished / "stage.json").read_text(encoding="utf-8")))


def _check_room(job: Job) -> None:
    """Raises TrainError where the cluster has no place for the workers; Ray would wait for ever.

    Not where `$PRECEPT_AUTOSCALES` is set: there nodes come when they are wanted.
    """
    import ray

    if os.environ.get("PRECEPT_AUTOSCALES"):
        return
    free = ray.available_resources()
    for name, each in _resources(job.workers).items():
        wanted, found = each * job.workers.num_workers, free.get(name, 0.0)
        if wanted > found:
            raise TrainError(
                f"{job.workers.num_workers} workers of {job.stage} need {wanted:g} {name}s and the "
                f"Ray cluster has {found:g} free; lower {job.stage}.workers.num_workers or "
                "num_cpus, or give a recipe for this machine"
            )


def _resources(workers: WorkersConfig) -> dict[str, float]:
    return {"CPU": workers.num_cpus, **({"GPU": 1.0} if workers.use_gpu else {})}


def _innermost(error: BaseException) -> BaseException:
    """What a worker said last: Ray wraps it several times."""
    failures = getattr(error, "worker_failures", None) or {}
    for failure in failures.values():
        error = failure
    while inner := getattr(error, "_base_exc", None) or getattr(error, "cause", None):
        error = inner
    return error


def prepare(job: Job) -> None:
    """What a worker does before it imports a library: nothing phones home, or logs what people
    wrote."""
    import logging

    for name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "VLLM_NO_USAGE_STATS"):
        os.environ[name] = "1"
    # TRL prints the prompt and the completion of a row that has no reward.
    logging.getLogger("trl").setLevel(logging.ERROR)
    if not job.workers.use_gpu:
        import torch

        torch.set_num_threads(job.workers.num_threads or max(1, int(job.workers.num_cpus)))


class EarlyStop:
    """Whether a training is to end before its last step, and as what."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.status = "completed"

    def because(self, reason: str, *, status: str) -> None:
        """Ends the training after this step; the first reason counts.

        `completed`: it has done what it could; `stopped`: it can go on once something is mended;
        `collapsed`: to go on would make it worse.
        """
        if self.reason is None:
            self.reason, self.status = reason, status


def run(trainer: Any, job: Job, stop: EarlyStop) -> None:
    """Trains from the last checkpoint if there is one, and leaves the finished model.

    Called in every worker. Raises TrainError where the workers did not train together, or not to
    the last step.
    """
    import ray.train

    context = ray.train.get_context()
    world = context.get_world_size()
    together = trainer.accelerator.num_processes
    if together != world:
        raise TrainError(f"{together} of {world} workers train together: each would train alone")
    trainer.add_callback(_reporting(job, stop))
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        trainer.train()
    else:
        with checkpoint.as_directory() as folder:
            _go_on(trainer, folder)
    state = trainer.state
    if not stop.reason and state.global_step != state.max_steps:
        raise TrainError(f"{state.global_step} of {state.max_steps} steps were done")
    if stop.status == "stopped" and state.global_step == state.max_steps:
        stop.status = "completed"
    _check_same(trainer, world)
    _save(trainer, job)
    if context.get_world_rank() == 0:
        _describe(trainer, job, stop)
    _barrier(world)


def _go_on(trainer: Any, folder: str) -> None:
    """Goes on from a checkpoint; one of the last step has nothing left to do but be handed over."""
    from transformers import TrainerState

    state = TrainerState.load_from_json(str(Path(folder) / "trainer_state.json"))
    if state.global_step < state.max_steps:
        trainer.train(resume_from_checkpoint=folder)
        return
    trainer._load_from_checkpoint(folder)
    trainer.state = state


def _reporting(job: Job, stop: EarlyStop) -> Any:
    """The callback that gives each checkpoint to Ray Train and ends a training that is to stop."""
    import ray.train
    from transformers import TrainerCallback

    class Reporting(TrainerCallback):  # type: ignore[misc]  # transformers is not followed
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            _barrier(ray.train.get_context().get_world_size())
            checkpoint = None
            if ray.train.get_context().get_world_rank() == 0:
                folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                checkpoint = ray.train.Checkpoint.from_directory(str(folder))
            metrics = {"step": state.global_step, **_latest(state.log_history)}
            metric, order = job.best
            metrics.setdefault(metric, float("inf") if order == "min" else float("-inf"))
            ray.train.report(metrics, checkpoint=checkpoint)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if ray.train.get_context().get_world_rank() == 0:
                written = job.progress.with_suffix(".tmp")
                written.write_text(json.dumps([state.global_step, state.max_steps]))
                written.replace(job.progress)
            _agree(stop, ray.train.get_context().get_world_size())
            if stop.reason:
                control.should_training_stop = True
                control.should_save = True

    return Reporting()


def _latest(history: list[dict[str, Any]]) -> dict[str, float]:
    """The last value of every metric."""
    return {
        name: float(value)
        for entry in history
        for name, value in entry.items()
        if isinstance(value, int | float)
    }


def _agree(stop: EarlyStop, world: int) -> None:
    """All workers stop for the first one's reason: one that stopped alone would leave the others
    waiting."""
    if world == 1:
        return
    import torch.distributed

    said: list[tuple[str | None, str]] = [(None, "")] * world
    torch.distributed.all_gather_object(said, (stop.reason, stop.status))
    for reason, status in said:
        if reason:
            stop.because(reason, status=status)


def _barrier(world: int) -> None:
    if world > 1:
        import torch.distributed

        torch.distributed.barrier()


def _check_same(trainer: Any, world: int) -> None:
    """Raises TrainError where the weights of the workers are not the same."""
    if world == 1 or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return
    import torch
    import torch.distributed

    model = trainer.accelerator.unwrap_model(trainer.model)
    sums = torch.stack([p.detach().double().abs().sum() for p in model.parameters()])
    everywhere = [torch.empty_like(sums) for _ in range(world)]
    torch.distributed.all_gather(everywhere, sums)
    if not all(torch.equal(sums, other) for other in everywhere):
        raise TrainError("the weights of the workers differ after training")


def _save(trainer: Any, job: Job) -> None:
    """The model as any other: weights of the parent's type, tokenizer, configuration."""
    import ray.train

    folder = job.finished
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        trainer.save_model(str(folder))
        return
    if ray.train.get_context().get_world_rank() != 0:
        return
    import torch
    from transformers import AutoConfig

    shutil.rmtree(folder, ignore_errors=True)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if job.config.lora:
        model = model.merge_and_unload()
    dtype = AutoConfig.from_pretrained(job.model, revision=job.revision).dtype
    # Whatever serves the model stops where it was taught to end its turn.
    model.generation_config.eos_token_id = sorted(job.end_ids)
    model.to(dtype or torch.bfloat16).save_pretrained(folder)


def _describe(trainer: Any, job: Job, stop: EarlyStop) -> None:
    """Writes the tokenizer and, last, what the training came to."""
    trainer.processing_class.save_pretrained(job.finished)
    log = [
        {name: value for name, value in entry.items() if isinstance(value, int | float)}
        for entry in trainer.state.log_history
    ]
    said = {
        "num_steps": trainer.state.global_step,
        "stopped": stop.reason,
        "status": stop.status,
        "metrics": _latest(trainer.state.log_history),
        "log": log,
    }
    (job.finished / "stage.json").write_text(json.dumps(said), encoding="utf-8")


def hand_over(job: Job, path: Path) -> None:
    """Moves the finished model to where it stays, in one step."""
    if not (job.finished / "config.json").is_file():
        raise TrainError(f"{job.stage} left no whole model in {job.finished}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        shutil.rmtree(path)
    job.finished.rename(path)


def tidy(job: Job) -> None:
    """Removes what only a training that goes on would need; Ray's last and best checkpoint stay."""
    for name in ("data", "cache", "trainer"):
        shutil.rmtree(Path(job.folder) / name, ignore_errors=True)
