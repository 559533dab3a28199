"""checkpoints ← preference pairs: DPO on the best against the worst completion of a prompt.

The pairs fall out of the scores of the filter (view `preference_pairs`). The model's own chat
template renders them as text, without the spec.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Protocol

import duckdb
from pydantic import Field

from specs.prompts import Message
from tasks.engine.chat_template import ChatError, ChatTemplate
from tasks.training.checkpoint import TrainingOutcome
from tasks.training.tokenise import LearnOn
from tasks.training.trainer import (
    BestBy,
    DataError,
    DataFigures,
    Job,
    TrainError,
    TrainingConfig,
    fit,
)
from tasks.training.worker import EarlyStop, run_trainer, set_up
from warehouse.catalog import look_up
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import EXAMPLES, AssistantTurn, Example, Turn, content_id, text_id

_BEST = BestBy("rewards/margins", "max")


class DpoConfig(TrainingConfig):
    """Training on preference pairs."""

    added_later: ClassVar[frozenset[str]] = frozenset({"learn_on"})

    learning_rate: float = Field(1e-6, gt=0)
    """Peak learning rate."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the pairs."""
    beta: float = Field(0.1, gt=0)
    """Weight of the penalty for moving away from the model that it begins from."""
    max_length: int = Field(8192, gt=0)
    """Longest prompt and completion together, in tokens; longer pairs are left out and counted."""
    min_margin: float = Field(2.0, gt=0)
    """Smallest difference between the lowest scores of the two, from 0 to 10."""
    learn_on: LearnOn = "all"
    """Part of a reply that is taught: `all` of it, or the `answer` alone, after an empty reasoning
    block."""


class PairsConfig(Protocol):
    """The keys of a training by which its preference pairs are chosen."""

    @property
    def min_margin(self) -> float: ...

    @property
    def max_length(self) -> int: ...

    @property
    def learn_on(self) -> LearnOn: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedReply:
    """One side of a preference pair."""

    completion_id: str
    score: float
    """The lowest judge score, from 0 to 10."""
    scores: list[float]
    cited: list[str]
    reasoning: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair:
    """A prompt with the completion to prefer and the one to avoid."""

    prompt_id: str
    categories: list[str]
    ideal_response: str | None
    spec_id: str
    messages: list[Message]
    chosen: JudgedReply
    rejected: JudgedReply

    @property
    def sides(self) -> tuple[JudgedReply, JudgedReply]:
        """The chosen and the rejected reply."""
        return self.chosen, self.rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class PairText:
    """A preference pair as text; its fields are the columns that TRL reads."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The pairs that a training learns from, frozen as a set."""

    texts: Sequence[PairText]
    set_id: str
    """Hash of the pairs' ids and texts."""
    members: Sequence[Example]
    """The completions of the pairs: preferred and dispreferred."""
    left_out: Mapping[str, int]
    """Pairs that cannot be learned whole, by reason."""


def choose_pairs(
    connection: duckdb.DuckDBPyConnection,
    chats: ChatTemplate,
    *,
    config: PairsConfig,
    generation_id: str,
    judging_id: str,
    run_id: str,
) -> Pairs:
    """Returns the pairs that can be learned whole; raises DataError if there is none."""
    rows = look_up(
        connection,
        "pairs_to_learn",
        generation_id=generation_id,
        judging_id=judging_id,
        min_margin=config.min_margin,
    )
    texts: list[PairText] = []
    pairs: list[PreferencePair] = []
    left_out: Counter[str] = Counter()
    for pair in map(_pair, rows):
        try:
            texts.append(_render(chats, pair, config))
        except ChatError as error:
            left_out[str(error)] += 1
        else:
            pairs.append(pair)
    if not pairs:
        reasons = f" ({dict(left_out)})" if left_out else ""
        raise DataError(
            f"no preference pair to learn from among {len(rows)}{reasons}; raise generate.samples "
            "or the temperature, or lower min_margin"
        )
    sides = [side for pair in pairs for side in pair.sides]
    ids = [(side.completion_id, text_id(side.reasoning, side.answer)) for side in sides]
    parts = [part for both in ids for part in both]
    learned = [] if config.learn_on == "all" else [config.learn_on]
    set_id = content_id("pairs", judging_id, *parts, *learned)
    members = [
        _example(pair, side, set_id=set_id, run_id=run_id) for pair in pairs for side in pair.sides
    ]
    return Pairs(texts=texts, set_id=set_id, members=members, left_out=dict(left_out))


def _pair(row: dict[str, Any]) -> PreferencePair:
    sides = {side: JudgedReply(**row[side]) for side in ("chosen", "rejected")}
    return PreferencePair(**{**row, **sides})


def _render(chats: ChatTemplate, pair: PreferencePair, config: PairsConfig) -> PairText:
    """Returns a pair as text; raises ChatError if it cannot be learned whole."""
    replies = []
    for side in pair.sides:
        reasoning = None if config.learn_on == "answer" else side.reasoning
        encoded = chats.encode(pair.messages, reasoning=reasoning, answer=side.answer)
        if len(encoded.input_ids) > config.max_length:
            raise ChatError(f"longer than {config.max_length} tokens")
        replies.append(chats.reply_text(reasoning=reasoning, answer=side.answer))
    chosen, rejected = replies
    if config.learn_on == "answer" and chosen == rejected:
        raise ChatError("the two answers are the same")
    return PairText(prompt=chats.prompt_text(pair.messages), chosen=chosen, rejected=rejected)


def _example(pair: PreferencePair, side: JudgedReply, *, set_id: str, run_id: str) -> Example:
    """Returns one completion of a pair as a row of the frozen set."""
    is_chosen = side is pair.chosen
    reply = AssistantTurn(role="assistant", content=side.answer, reasoning_content=side.reasoning)
    return Example(
        set_id=set_id,
        completion_id=side.completion_id,
        prompt_id=pair.prompt_id,
        status="chosen" if is_chosen else "left_out",
        reason="preferred" if is_chosen else "dispreferred",
        categories=pair.categories,
        ideal_response=pair.ideal_response,
        spec_id=pair.spec_id,
        score=side.score,
        scores=side.scores,
        cited=side.cited,
        run_id=run_id,
        created_at=datetime.now(UTC),
        prompt=[Turn(**message) for message in pair.messages],
        completion=[reply],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoTraining:
    """DPO on preference pairs."""

    config: DpoConfig
    pairs: Pairs
    home: Home
    name: str = "dpo"
    best: BestBy = _BEST

    @property
    def fingerprint(self) -> str:
        return self.pairs.set_id

    @property
    def set_id(self) -> str:
        return self.pairs.set_id

    @property
    def num_gpus(self) -> float:
        return self.config.workers.num_gpus

    def train(self, job: Job) -> TrainingOutcome:
        """Stores the pairs as a set of examples and trains on them."""
        return learn_pairs(_loop, job, self.pairs, self.home)


def learn_pairs(
    loop: Callable[[Job, Sequence[PairText]], None], job: Job, pairs: Pairs, home: Home
) -> TrainingOutcome:
    """Stores pairs as a set of examples, and runs `loop(job, texts)` on them in the workers."""
    write_shard(home, EXAMPLES, pairs.members)
    figures = DataFigures(num_rows=len(pairs.texts), left_out=pairs.left_out)
    return TrainingOutcome(fit(loop, job, pairs.texts), figures)


def _loop(job: Job, texts: Sequence[PairText]) -> None:
    """Trains in one worker."""
    set_up(job)
    import datasets
    from trl import DPOConfig as Arguments
    from trl import DPOTrainer

    config = job.config
    assert isinstance(config, DpoConfig)
    tokenizer = job.load_tokenizer()
    rows = [asdict(text) | {"prompt": _without_start(tokenizer, text.prompt)} for text in texts]
    arguments = Arguments(
        **{
            **job.trl_arguments(),
            "num_train_epochs": config.epochs,
            "beta": config.beta,
            "max_length": config.max_length,
            "logging_steps": 1,
        }
    )
    trainer = DPOTrainer(
        model=job.model,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=job.peft_config(),
    )
    if len(trainer.train_dataset) != len(rows):
        raise TrainError(
            f"{len(trainer.train_dataset)} of {len(rows)} pairs reached the trainer: TRL took the "
            "others out"
        )
    run_trainer(trainer, job, EarlyStop())


def _without_start(tokenizer: Any, text: str) -> str:
    """Returns a prompt without the start token, if the tokenizer puts one before every text."""
    start = tokenizer.bos_token
    doubled = bool(start) and tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(start) if doubled else text
