"""A training: its configuration, its job, and its run in the workers of Ray Train.

A training has a folder of its own under the warehouse. Ray Train keeps the latest and the best of
its checkpoints there: a worker that dies is replaced and resumes from the latest one, and so does
the whole training when it is started again.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from pydantic import Field, model_validator

from tasks import Config
from tasks.engine.cluster import require_room
from tasks.engine.faults import message_of, root_cause
from tasks.engine.processor import is_quick_at_bfloat16
from tasks.training.tracking import Tracker, Tracking

_RUNTIME_ARGUMENTS = (
    "fsdp",
    "deepspeed",
    "gradient_checkpointing",
    "dataloader_",
    "vllm_",
    "ddp_",
    "torch_",
)
"""Prefixes of the names of TRL's arguments that change only how a training runs."""

Data = TypeVar("Data")


class DataError(ValueError):
    """Data that a training lacks, or must not learn from."""


class TrainError(RuntimeError):
    """A training that cannot go on; its latest checkpoint is kept."""


class WorkersLost(TrainError):
    """A training whose workers failed more often than they may. A retry can go on."""


class LoraConfig(Config):
    """Low-rank adapters that are trained in place of all weights, and merged at the end."""

    rank: int = Field(32, gt=0)
    """Rank of the adapters."""
    alpha: int = Field(64, gt=0)
    """Numerator of the adapters' scale, alpha / rank."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout on the adapters' input."""
    targets: str | list[str] = "all-linear"
    """Names of the modules that get an adapter."""

    def of_peft(self, task: Literal["CAUSAL_LM", "SEQ_CLS"]) -> Any:
        """Returns PEFT's configuration of the adapters."""
        import peft

        return peft.LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self.targets,
            task_type=task,
        )


class WorkersConfig(Config):
    """Resources of a training; nothing here changes what is learned."""

    num_workers: int = Field(1, gt=0)
    """Workers that share each step."""
    use_gpu: bool = True
    """A GPU for each worker; false to train on CPUs."""
    gpu_share: float = Field(1.0, gt=0, le=1)
    """Share of a GPU that Ray reserves for each worker, so that judges stand on the same GPU."""
    num_cpus: float = Field(1.0, gt=0)
    """Processors that Ray reserves for each worker."""
    num_threads: int | None = Field(None, gt=0)
    """Threads of a worker without a GPU. Unset: as many as `num_cpus`."""
    rows_at_once: int = Field(4, gt=0)
    """Rows in one forward pass of a worker; `batch_size` is reached by accumulating gradients."""
    bf16: bool | None = None
    """Compute in bfloat16; the weights keep their type. Unset: on GPUs, and on CPUs with AVX-512;
    others would take many times as long."""
    save_steps: int = Field(50, gt=0)
    """Steps between checkpoints."""
    max_failures: int = Field(3, ge=0)
    """Failures of workers that are survived; after one more the training stops, and the same
    command resumes it."""
    arguments: dict[str, bool | int | float | str] = {}
    """Further arguments of TRL that change only how a training runs: fsdp…, deepspeed…,
    gradient_checkpointing…, dataloader_…, vllm_…, ddp_…, torch_…"""

    @property
    def rows_per_pass(self) -> int:
        """Rows in one forward pass of all workers."""
        return self.num_workers * self.rows_at_once

    @property
    def num_gpus(self) -> float:
        """GPUs of all workers together."""
        return self.num_workers * self.gpu_share if self.use_gpu else 0

    @property
    def resources(self) -> dict[str, float]:
        """Amounts that Ray reserves for one worker, by Ray's names."""
        return {"CPU": self.num_cpus, **({"GPU": self.gpu_share} if self.use_gpu else {})}

    def computes_in_bf16(self) -> bool:
        """Returns whether a worker on this machine computes in bfloat16."""
        if self.bf16 is not None:
            return self.bf16
        return self.use_gpu or is_quick_at_bfloat16()

    @model_validator(mode="after")
    def _check_arguments(self) -> "WorkersConfig":
        for name in self.arguments:
            if not name.startswith(_RUNTIME_ARGUMENTS):
                raise ValueError(
                    f"workers.arguments.{name} may change what is learned; only arguments that "
                    f"begin with {', '.join(_RUNTIME_ARGUMENTS)} may stand here"
                )
        return self


class TrainingConfig(Config):
    """The keys of every training; all but `workers` and `report_to` define its checkpoint."""

    not_defining: ClassVar[dict[str, Any]] = {"workers": True, "report_to": True}
    """Keys that change only how the training runs, in the form of pydantic's `exclude`."""
    added_later: ClassVar[frozenset[str]] = frozenset()
    """Keys that are not hashed at their defaults, so that older checkpoints keep their ids."""

    learning_rate: float = Field(1e-5, gt=0)
    """Peak learning rate."""
    batch_size: int = Field(64, gt=0)
    """Rows per optimiser step, over all workers."""
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    """Learning-rate schedule after the warm-up."""
    warmup_share: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Norm to which gradients are clipped."""
    seed: int = 1
    """Seed of the order of rows and of sampling."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights during training; bfloat16 needs `lora`."""
    lora: LoraConfig | None = None
    """Low-rank adapters. Unset: all weights are trained."""
    report_to: Tracker | None = None
    """Tracker that is shown the figures of each step beside the warehouse: `trackio`, `wandb`,
    `mlflow` or `none`; its package must be installed. It writes to folder `tracking` of the
    warehouse (of one on a store, of its scratch folder) and sends nothing, unless its own variables
    tell it to: `TRACKIO_SPACE_ID`, `WANDB_MODE`, `MLFLOW_TRACKING_URI`. Unset: `trackio` if it is
    installed, else `none`."""
    workers: WorkersConfig = WorkersConfig()
    """Resources of the training."""

    @model_validator(mode="after")
    def _check_training(self) -> "TrainingConfig":
        workers = self.workers
        if self.batch_size % workers.rows_per_pass:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of {workers.rows_per_pass}, the "
                f"rows that {workers.num_workers} workers take at once; change batch_size or "
                "workers.rows_at_once"
            )
        if self.dtype == "bfloat16" and self.lora is None:
            raise ValueError(
                "dtype bfloat16 rounds small updates of the weights away; add a lora section, or "
                "use float32"
            )
        if self.lora and any(name.startswith(("fsdp", "deep")) for name in workers.arguments):
            raise ValueError(
                "lora cannot be merged under fsdp or deepspeed; take lora or those "
                "workers.arguments out"
            )
        return self

    def defining(self) -> str:
        """Returns the settings that define the model, as they are hashed into its id."""
        return self.model_dump_json(by_alias=True, exclude=self.unhashed())

    def unhashed(self) -> dict[str, Any]:
        """Returns the keys that are not hashed into the model's id, in the form of pydantic's
        `exclude`."""
        fields = type(self).model_fields
        absent = {key for key in self.added_later if getattr(self, key) == fields[key].default}
        return {**self.not_defining, **dict.fromkeys(absent, True)}


class BestBy(NamedTuple):
    """The metric by which the best checkpoint is kept."""

    metric: str
    order: Literal["min", "max"]

    @property
    def worst(self) -> float:
        """A value that any other is better than."""
        return float("inf") if self.order == "min" else float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One training as its workers know it."""

    name: str
    """`midtrain`, `sft`, `dpo`, `reward_model` or `rl`."""
    checkpoint_id: str
    folder: str
    """Absolute, because workers run in folders of their own, and the same on every node."""
    model: str
    """Folder or id of the model that it begins from."""
    revision: str | None
    chat_template_kwargs: Mapping[str, bool | str]
    end_ids: frozenset[int]
    """Tokens that end a turn."""
    config: TrainingConfig
    best: BestBy
    tracking: Tracking = field(default_factory=Tracking)

    @property
    def workers(self) -> WorkersConfig:
        return self.config.workers

    @property
    def progress(self) -> Path:
        """The file in which the first worker counts steps: those done, and all."""
        return Path(self.folder) / "progress.json"

    @property
    def finished(self) -> Path:
        """The folder in which the workers leave the model, until it is handed over."""
        return Path(self.folder) / "model"

    def load_tokenizer(self) -> Any:
        """Returns the tokenizer of the model that the training begins from."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.model, revision=self.revision)

    def trl_arguments(self) -> dict[str, Any]:
        """Returns the arguments that the configurations of all TRL trainers share."""
        config, workers = self.config, self.workers
        return {
            "output_dir": str(Path(self.folder) / "trainer"),
            "learning_rate": config.learning_rate,
            "per_device_train_batch_size": workers.rows_at_once,
            "gradient_accumulation_steps": config.batch_size // workers.rows_per_pass,
            "lr_scheduler_type": config.schedule,
            # transformers takes a number below 1 as a share of the steps.
            "warmup_steps": config.warmup_share,
            "weight_decay": config.weight_decay,
            "max_grad_norm": config.max_grad_norm,
            "model_init_kwargs": {"revision": self.revision, "dtype": config.dtype},
            "seed": config.seed,
            "bf16": workers.computes_in_bf16(),
            # Without it accelerate starts no process group on CPUs, and each worker trains alone.
            "use_cpu": not workers.use_gpu,
            "gradient_checkpointing": workers.use_gpu,
            # By steps alone: every worker must save equally often, because a report is a barrier.
            "save_strategy": "steps",
            "save_steps": workers.save_steps,
            "save_total_limit": 1,
            **self.tracking.trl_arguments(f"{self.name}-{self.checkpoint_id[:12]}"),
            "disable_tqdm": True,
            "ddp_find_unused_parameters": False,
            **workers.arguments,
        }

    def peft_config(self, task: Literal["CAUSAL_LM", "SEQ_CLS"] = "CAUSAL_LM") -> Any:
        """Returns PEFT's configuration of the adapters, or None.

        Of a model with a head of its own, task `SEQ_CLS`, all weights of the head are trained.
        """
        lora = self.config.lora
        return lora.of_peft(task) if lora else None


Status = Literal["completed", "stopped", "collapsed"]
"""`completed`: the training did all it could. `stopped`: it can go on once its cause is mended.
`collapsed`: further steps would make the model worse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The end of a training: its steps, status and metrics."""

    num_steps: int
    status: Status
    reason: str | None
    """Cause of an end before the last step. Unset: it came to its last step."""
    metrics: dict[str, float]
    """The latest value of each metric."""
    log: list[dict[str, float]]
    """All metrics, step by step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFigures:
    """Counts of the data that a training learned from."""

    num_rows: int
    num_tokens: int | None = None
    """Tokens of the data. Unset: they were not counted."""
    sources: Mapping[str, int] = field(default_factory=dict)
    """Rows by source."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Rows that cannot be learned whole, by reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFigures(DataFigures):
    """Steps, seconds and data of a training in one run."""

    num_steps: int
    seconds: float
    num_gpus: float
    """GPUs of the workers and, in reinforcement learning, of the judges."""

    @property
    def gpu_seconds(self) -> float:
        """GPUs times seconds."""
        return self.seconds * self.num_gpus


def fit(loop: Callable[[Job, Data], None], job: Job, data: Data) -> Finished:
    """Runs `loop(job, data)` in the workers until they leave the model; returns how it ended.

    Raises RoomError if the cluster has no room for the workers, WorkersLost if they fail more often
    than they may, and TrainError if they refuse the job.
    """
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    class _LeavesSignals(TorchTrainer):  # type: ignore[misc]  # ray is not followed
        def _register_sigint_handler(self, controller: Any) -> None:
            """Leaves Ctrl-C to the command: Ray's handler would wait for the workers."""

    workers = job.workers
    require_room(
        ray.available_resources(),
        {name: amount * workers.num_workers for name, amount in workers.resources.items()},
        what=f"training {job.name} with {workers.num_workers} workers",
        remedy=f"lower {job.name}.workers.num_workers or num_cpus, or use a recipe for this "
        "machine",
    )
    trainer = _LeavesSignals(
        partial(loop, job, data),
        scaling_config=ScalingConfig(
            num_workers=workers.num_workers,
            use_gpu=workers.use_gpu,
            resources_per_worker=workers.resources,
        ),
        run_config=RunConfig(
            # Ray Train resumes a run of the same name in the same place: the id names what is
            # learned, so a retry resumes and a changed recipe does not.
            name=job.checkpoint_id,
            storage_path=str(Path(job.folder) / "ray"),
            failure_config=FailureConfig(max_failures=workers.max_failures),
            checkpoint_config=CheckpointConfig(
                num_to_keep=1,
                checkpoint_score_attribute=job.best.metric,
                checkpoint_score_order=job.best.order,
            ),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise _fault(job, error) from error
    return Finished(**json.loads((job.finished / "stage.json").read_text(encoding="utf-8")))


def _fault(job: Job, error: BaseException) -> TrainError:
    """Returns what a failure of Ray Train means for the training."""
    cause = root_cause(error)
    refused = isinstance(cause, TrainError | ValueError | TypeError)
    return (TrainError if refused else WorkersLost)(
        f"{job.name} stopped: {type(cause).__name__}: {message_of(cause)}; its latest checkpoint "
        "is kept, mend the cause and run the same command again"
    )
