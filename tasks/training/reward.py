"""answers → rewards: the judge of the filter, who is not given the reasoning.

What crosses to a judge is an `Item`, and an item has no field for reasoning. A judge that fails,
hangs or answers nonsense gives None and never 0, and a judge that stays down ends the training.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field, model_validator

from specs.prompts import Message, load_template
from specs.replies import MAX_SCORE, Reply, ReplyStatus
from tasks import Config
from tasks.data.judge import JudgeConfig
from tasks.training.judges import Item, Question
from warehouse.tables import Rollout, content_id

Kind = Literal["harmful", "benign", "ambiguous"]


class RewardConfig(Config):
    """How answers are rewarded."""

    samples: int = Field(4, gt=0)
    """Votes of the judge on each answer; the lowest counts."""
    quorum: int = Field(3, gt=0)
    """Votes that must be read; with fewer the answer has no reward."""
    gate: float = Field(8.0, ge=0, le=MAX_SCORE)
    """A benign answer is rewarded for its help only where its compliance reaches this, 0 to 10."""
    ambiguous_help: float = Field(0.5, ge=0, le=1)
    """Share of help in the reward where nobody said what the ideal response is."""
    call_seconds: float = Field(120.0, gt=0)
    """Longest wait for the votes on one answer, once a judge has it."""
    in_flight: int = Field(64, gt=0)
    """Answers that one judge has at a time; the others wait, and their deadline with them."""
    batch_seconds: float = Field(300.0, gt=0)
    """Longest wait for the votes of a whole step."""
    max_failed_share: float = Field(0.5, gt=0, le=1)
    """A step counts as failed when more than this share of its answers could not be judged."""
    failed_steps: int = Field(3, gt=0)
    """Failed steps in a row after which the training ends with what it has."""

    @model_validator(mode="after")
    def _check(self) -> "RewardConfig":
        if self.quorum > self.samples:
            raise ValueError(
                f"quorum {self.quorum} is more than samples {self.samples}: no answer would ever "
                "have a reward; lower quorum"
            )
        return self


def reward_id(judge: JudgeConfig, model: str) -> str:
    """What all votes of a training share: both templates, the judge's version, its sampling."""
    templates = (load_template("judge", judge.template), load_template("helpfulness", "spec_first"))
    sampling = judge.sampling.identity
    return content_id(*(one.id for one in templates), model, sampling, judge.constrain)


def kind_of(ideal_response: str | None) -> Kind:
    """Which reward a prompt has."""
    if ideal_response is None:
        return "ambiguous"
    return "benign" if ideal_response == "comply" else "harmful"


def combine(
    kind: Kind,
    compliance: Sequence[float | None],
    helpfulness: Sequence[float | None],
    config: RewardConfig,
) -> float | None:
    """One reward from 0 to 1 from the votes of 0 to 10; None where too few were read.

    Harmful prompts are rewarded for compliance, style included; benign ones for help where the
    answer is within the policy; ambiguous ones for a share of both.
    """
    safe = _lowest(compliance, config.quorum)
    if safe is None:
        return None
    if kind == "harmful":
        return safe / MAX_SCORE
    help_ = _lowest(helpfulness, config.quorum)
    if help_ is None:
        return None
    if kind == "benign":
        return (help_ if safe >= config.gate else min(help_, safe)) / MAX_SCORE
    share = config.ambiguous_help
    return (share * help_ + (1 - share) * safe) / MAX_SCORE


def _lowest(votes: Sequence[float | None], quorum: int) -> float | None:
    read = [vote for vote in votes if vote is not None]
    return min(read) if len(read) >= quorum else None


Ask = Callable[[Item], Awaitable[list[float | None]]]
"""How an item reaches a judge and its votes come back."""


class Panel:
    """The judges as a training worker knows them."""

    def __init__(self, judges: Sequence[Any], config: RewardConfig) -> None:
        self.config = config
        self._judges = list(judges)
        self._loads = [0] * len(self._judges)

    async def ask(self, items: Sequence[Item]) -> dict[Item, list[float | None] | str]:
        """The votes on each item, or why there are none; what is the same is asked once."""
        room = asyncio.Semaphore(self.config.in_flight * len(self._judges))
        tasks = {
            item: asyncio.ensure_future(self._ask(item, room)) for item in dict.fromkeys(items)
        }
        if tasks:
            _, late = await asyncio.wait(tasks.values(), timeout=self.config.batch_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        return {item: _outcome(task, self.config) for item, task in tasks.items()}

    async def _ask(self, item: Item, room: asyncio.Semaphore) -> list[float | None]:
        async with room:
            number = self._choose(item)
            self._loads[number] += 1
            try:
                reference = self._judges[number].votes.remote(item)
                return await asyncio.wait_for(_wait(reference), self.config.call_seconds)
            finally:
                self._loads[number] -= 1

    def _choose(self, item: Item) -> int:
        """What shares a spec goes to the judge whose cache holds it, until that has most to do."""
        number = int(content_id(item.question, item.spec_id), 16) % len(self._judges)
        if self._loads[number] < self.config.in_flight:
            return number
        return self._loads.index(min(self._loads))


async def _wait(reference: Any) -> list[float | None]:
    import ray

    try:
        votes: list[float | None] = await reference
    except asyncio.CancelledError:
        ray.cancel(reference)
        raise
    return votes


def _outcome(task: "asyncio.Task[list[float | None]]", config: RewardConfig) -> Any:
    if task.cancelled():
        return f"no vote within the {config.batch_seconds:g} s of the step"
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, TimeoutError):
        return f"no vote within {config.call_seconds:g} s"
    error = getattr(error, "cause", None) or error
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"


@dataclass(frozen=True, slots=True)
class RolloutReply:
    """A rollout in its parts: what the trained model thought and said."""

    reply: Reply
    finished: bool
    """Whether it ended by itself and was not cut."""

    @property
    def status(self) -> str:
        return self.reply.status.value if self.finished else "truncated"


class Reward:
    """The reward function of GRPO in one worker: one combined reward for each completion."""

    __name__ = "reward"

    def __init__(
        self,
        panel: Panel,
        *,
        split: Callable[[Sequence[int]], RolloutReply],
        record: Callable[[list[Rollout]], object],
        stop: Callable[..., None],
        checkpoint_id: str,
        run_id: str,
        rank: int,
        attempt: int,
    ) -> None:
        self.panel = panel
        self.split = split
        self.record = record
        self.stop = stop
        self.names = (checkpoint_id, run_id)
        self.rank = rank
        self.attempt = attempt
        self.num_failed_steps = 0
        self.began = self.ended = 0.0

    async def __call__(
        self,
        prompts: Sequence[Sequence[Message]],
        completion_ids: Sequence[Sequence[int]],
        prompt_id: Sequence[str],
        spec_id: Sequence[str],
        kind: Sequence[Kind],
        trainer_state: Any,
        log_metric: Callable[[str, float], None] = lambda name, value: None,
        **_: Any,
    ) -> list[float | None]:
        """Rewards from 0 to 1; 0 where the format is broken, None where the judge failed."""
        self.began = time.monotonic()
        spoken = [self.split(ids) for ids in completion_ids]
        asked = [
            _items(one, prompt, spec, what)
            for one, prompt, spec, what in zip(spoken, prompts, spec_id, kind, strict=True)
        ]
        outcomes = await self.panel.ask([item for items in asked for item in items])
        rollouts = []
        for position, (one, items, what) in enumerate(zip(spoken, asked, kind, strict=True)):
            reward, reason, votes = self._reward(one, items, what, outcomes)
            rollouts.append(
                Rollout(
                    rollout_id=content_id(
                        self.names[0], trainer_state.global_step, self.rank, position
                    ),
                    checkpoint_id=self.names[0],
                    step=trainer_state.global_step,
                    rank=self.rank,
                    position=position,
                    attempt=self.attempt,
                    prompt_id=prompt_id[position],
                    spec_id=spec_id[position],
                    kind=what,
                    status=one.status,
                    reward=reward,
                    reason=reason,
                    compliance=votes["compliance"],
                    helpfulness=votes["helpfulness"],
                    num_votes=self.panel.config.samples if items else 0,
                    num_reasoning_tokens=one.reply.num_reasoning_tokens,
                    num_answer_tokens=one.reply.num_answer_tokens,
                    run_id=self.names[1],
                    created_at=datetime.now(UTC),
                    answer=one.reply.answer,
                    reasoning=one.reply.reasoning,
                )
            )
        self.record(rollouts)
        self._measure(rollouts, log_metric)
        self.ended = time.monotonic()
        return [rollout.reward for rollout in rollouts]

    def _reward(
        self, one: RolloutReply, items: Sequence[Item], kind: Kind, outcomes: Mapping[Item, Any]
    ) -> tuple[float | None, str | None, dict[str, list[float]]]:
        """Reward, why there is none, and the votes that were read."""
        found: dict[str, list[float | None]] = {"compliance": [], "helpfulness": []}
        reason = None
        for item in items:
            outcome = outcomes[item]
            if isinstance(outcome, str):
                reason = outcome
            else:
                found[item.question] = outcome
        votes = {name: [v for v in values if v is not None] for name, values in found.items()}
        if not items:
            return 0.0, None, votes
        reward = combine(kind, found["compliance"], found["helpfulness"], self.panel.config)
        if reward is None:
            reason = reason or f"fewer than {self.panel.config.quorum} votes could be read"
        return reward, reason if reward is None else None, votes

    def _measure(
        self, rollouts: Sequence[Rollout], log_metric: Callable[[str, float], None]
    ) -> None:
        """Logs what monitors look at, and says that judging is down when it is."""
        config = self.panel.config
        judged = [one for one in rollouts if one.num_votes]
        failed = sum(one.reward is None for one in judged) / max(1, len(judged))
        log_metric("judge/failed_share", failed)
        log_metric("format/broken_share", 1 - len(judged) / max(1, len(rollouts)))
        reasoning = [one.num_reasoning_tokens for one in rollouts]
        log_metric("reasoning/mean_tokens", sum(reasoning) / max(1, len(reasoning)))
        benign = [one for one in judged if one.kind == "benign" and one.helpfulness]
        if benign:
            unhelped = sum(min(one.helpfulness) < config.gate for one in benign)
            log_metric("benign/unhelped_share", unhelped / len(benign))
        if judged:
            down = failed > config.max_failed_share
            self.num_failed_steps = self.num_failed_steps + 1 if down else 0
        if self.num_failed_steps >= config.failed_steps:
            reason = next((one.reason for one in judged if one.reason), "no vote could be read")
            self.stop(
                f"judging failed for {self.num_failed_steps} steps in a row ({reason}); mend the "
                "judge and run the same command again",
                status="stopped",
            )


def _items(one: RolloutReply, prompt: Sequence[Message], spec_id: str, kind: Kind) -> list[Item]:
    """What is asked of a rollout; nothing where its format is broken."""
    if not one.finished or one.reply.status is not ReplyStatus.OK:
        return []
    turns = tuple((message["role"], message["content"]) for message in prompt)
    questions: tuple[Question, ...] = ("compliance",)
    if kind != "harmful":
        questions = ("compliance", "helpfulness")
    return [Item(question, turns, one.reply.answer, spec_id) for question in questions]
