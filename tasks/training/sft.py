"""checkpoints ← examples: supervised fine-tuning on reasoning and answer, without the spec.

TRL trains on exactly the rows that were tokenised, in an order that a resumed training finds again.
A training begins from the student, or continues from a checkpoint that learned an earlier set.
"""

import glob
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from tasks import Config
from tasks.engine.chat_template import ChatTemplate
from tasks.paths import LocatedFile, find, places
from tasks.training.checkpoint import TrainingOutcome
from tasks.training.tokenise import COUNTS, LearnOn, Replay, SftData, Tokenised, tokenise
from tasks.training.trainer import (
    BestBy,
    DataError,
    Job,
    TrainError,
    TrainingConfig,
    WorkersConfig,
    fit,
)
from tasks.training.worker import EarlyStop, run_trainer, set_up
from warehouse.catalog import connect
from warehouse.home import Home

if TYPE_CHECKING:
    from trl import SFTTrainer

BEST = BestBy("loss", "min")
"""The metric of a training on tokenised rows."""


class CapabilityConfig(Config):
    """Data without policies, so that the model keeps the abilities it had."""

    path: LocatedFile
    """File of any kind that a source may have, with a column messages, whose last turn is the
    assistant's and has the keys content and reasoning_content; other rows are left out and
    counted."""
    share: float = Field(0.2, gt=0, lt=1)
    """Share of these rows among all rows."""


class RowsWorkersConfig(WorkersConfig):
    """Resources of a training on tokenised rows; nothing here changes what is learned."""

    padding_free: bool | None = None
    """Lay the rows of a forward pass one after the other in place of padding them; each sees itself
    alone. Unset: on GPUs where package flash-attn is installed. Any other attention compares every
    token of a pass with every other, which costs more than the padding."""

    def lays_rows_in_line(self) -> bool:
        """Returns whether a worker on this machine does without padding."""
        if self.padding_free is not None:
            return self.padding_free
        return self.use_gpu and _has_flash_attention()


def _has_flash_attention() -> bool:
    from transformers.utils import is_flash_attn_2_available

    return bool(is_flash_attn_2_available())


class RowsConfig(TrainingConfig):
    """The keys of a training on tokenised rows."""

    epochs: float = Field(3.0, gt=0)
    """Passes over the rows."""
    max_length: int = Field(8192, gt=0)
    """Longest row in tokens; longer rows are left out and counted."""
    workers: RowsWorkersConfig = RowsWorkersConfig()
    """Resources of the training."""


class SftConfig(RowsConfig):
    """Fine-tuning on examples."""

    not_defining: ClassVar[dict[str, Any]] = {
        **TrainingConfig.not_defining,
        "capability": {"path"},
    }
    added_later: ClassVar[frozenset[str]] = frozenset({"start", "replay", "learn_on"})

    learn_on: LearnOn = "all"
    """Part of an example that is taught: `all` of it, or the `answer` alone, after an empty
    reasoning block."""
    capability: CapabilityConfig | None = None
    """Capability data to mix in. Unset: examples alone."""
    start: str | None = None
    """Checkpoint to continue from: its id or the start of it, or `latest`, the recipe's latest
    fine-tuned one that learned another set of examples, or the student if there is none. Unset: the
    student."""
    replay: float | None = Field(None, gt=0, lt=1)
    """Share of examples that `start` has learned before among all examples, so that it forgets
    nothing. Unset: the whole set is learned, new examples and old ones."""

    @model_validator(mode="after")
    def _check_replay(self) -> "SftConfig":
        if self.replay is not None and self.start is None:
            raise ValueError(
                f"replay {self.replay} repeats what a checkpoint has learned, and start names "
                'none; set start = "latest", or leave replay out'
            )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class SftTraining:
    """Fine-tuning on a frozen set of examples."""

    config: SftConfig
    data: SftData
    home: Home
    name: str = "sft"
    best: BestBy = BEST

    @classmethod
    def of(
        cls, set_id: str, *, config: SftConfig, home: Home, learned_set: str | None = None
    ) -> "SftTraining":
        """Returns the training on a set; raises DataError if the capability file is missing.

        `learned_set` is the set that its start has learned. Unset: none.
        """
        capability = config.capability
        replay = Replay(learned_set, config.replay) if learned_set and config.replay else None
        data = SftData(
            set_id=set_id,
            max_length=config.max_length,
            capability=_find_file(capability.path) if capability else None,
            capability_share=capability.share if capability else 0.0,
            replay=replay,
            learn_on=config.learn_on,
        )
        return cls(config=config, data=data, home=home)

    @property
    def fingerprint(self) -> str:
        return self.data.fingerprint

    @property
    def set_id(self) -> str:
        return self.data.set_id

    @property
    def num_gpus(self) -> float:
        return self.config.workers.num_gpus

    def train(self, job: Job) -> TrainingOutcome:
        """Tokenises the rows, unless an earlier attempt has, and fine-tunes on them."""
        chats = ChatTemplate(job.load_tokenizer(), chat_template_kwargs=job.chat_template_kwargs)
        rows = tokenise(connect(self.home), chats, self.data, Path(job.folder) / "data")
        return TrainingOutcome(fit(learn_rows, job, rows), rows.figures)


def _find_file(path: str) -> Path:
    """Returns the file of capability data; raises DataError if it is missing."""
    file = find(path, accept=Path.is_file)
    if file is None:
        raise DataError(
            f"sft.capability.path: no file {path} ({places()}); give a file of chats, such as JSONL"
        )
    return file


def learning_order(lengths: Sequence[int], config: RowsConfig) -> list[int]:
    """Returns the indices of the rows in the order they are learned, over all epochs.

    Each epoch is a shuffle of its own in which rows of like length share a batch: less padding.
    `lengths` are the tokens of each row. The order follows from the seed alone, not from a
    sampler's state, so that a training that resumes finds it again.
    """
    rng = random.Random(config.seed)
    num_learned = round(len(lengths) * config.epochs)
    chosen: list[int] = []
    while len(chosen) < num_learned:
        rows = list(range(len(lengths)))
        rng.shuffle(rows)
        window = 50 * config.batch_size
        batches = []
        for start in range(0, len(rows), window):
            longest_first = sorted(rows[start : start + window], key=lambda row: -lengths[row])
            batches += [
                longest_first[first : first + config.batch_size]
                for first in range(0, len(longest_first), config.batch_size)
            ]
        rng.shuffle(batches)
        chosen += [row for batch in batches for row in batch]
    return chosen[:num_learned]


def _layout(job: Job, workers: RowsWorkersConfig) -> dict[str, Any]:
    """Returns TRL's arguments for the layout of the rows of a pass."""
    if not workers.lays_rows_in_line():
        return {}
    model = job.trl_arguments()["model_init_kwargs"]
    if workers.use_gpu and _has_flash_attention():
        model = {**model, "attn_implementation": "flash_attention_2"}
    return {"padding_free": True, "model_init_kwargs": model}


def learn_rows(job: Job, tokenised: Tokenised) -> None:
    """Trains on tokenised rows in one worker."""
    set_up(job)
    run_trainer(make_trainer(job, tokenised), job, EarlyStop())


def make_trainer(job: Job, tokenised: Tokenised) -> "SFTTrainer":
    """Returns TRL's trainer for tokenised rows in their learning order.

    Raises TrainError if a row does not reach it.
    """
    import datasets
    from trl import SFTConfig as Arguments
    from trl import SFTTrainer

    config = job.config
    assert isinstance(config, RowsConfig)
    rows = datasets.load_dataset(
        "parquet",
        # Each name stands for itself: a path may hold the signs of a glob.
        data_files=[glob.escape(file) for file in tokenised.files],
        split="train",
        cache_dir=str(Path(job.folder) / "cache"),
    )
    if len(rows) != tokenised.figures.num_rows:
        raise TrainError(
            f"{len(rows)} of {tokenised.figures.num_rows} rows reached the worker; run the same "
            "command again"
        )
    lengths = [sum(counts) for counts in zip(*(rows[name] for name in COUNTS), strict=True)]
    # Rows that have input_ids and labels are passed on as they are: TRL renders no template.
    learned = rows.select_columns(["input_ids", "labels"]).select(learning_order(lengths, config))
    arguments = Arguments(
        **{
            **job.trl_arguments(),
            **_layout(job, config.workers),
            # All epochs stand in the order already.
            "num_train_epochs": 1,
            "train_sampling_strategy": "sequential",
            # No row is longer than it may be. TRL would cut none that are laid in line.
            "max_length": None,
            # Rows that TRL packs are other rows in each pass, and a batch another number of them.
            "packing": False,
            "logging_steps": 1,
        }
    )
    trainer = SFTTrainer(
        model=job.model,
        args=arguments,
        train_dataset=learned,
        processing_class=job.load_tokenizer(),
        peft_config=job.peft_config(),
    )
    # TRL drops rows that it finds nothing to learn in, without a word.
    if len(trainer.train_dataset) != len(learned):
        raise TrainError(
            f"{len(trainer.train_dataset)} of {len(learned)} rows reached the trainer: TRL took "
            "the others out"
        )
    return trainer
