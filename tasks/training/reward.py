"""answers → rewards: the judge of the filter, a function or a reward model, none of which sees the
reasoning.

A judge that fails, hangs or answers nonsense gives None and never 0, and a judge that stays down
ends the training. Every rollout is recorded with its scores and its reward.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from specs.prompts import Message
from specs.replies import FORM_VERSION, MAX_SCORE, ReplyStatus
from tasks import Config
from tasks.data.judge import JudgeConfig
from tasks.evaluation.graders import load_function, reads_pack
from tasks.training.judges import (
    Criterion,
    JudgeLimits,
    JudgeReply,
    JudgeRequest,
    Judging,
    PromptTurn,
)
from tasks.training.rollouts import RolloutReply
from tasks.training.worker import EarlyStop
from warehouse.tables import Rollout, content_id

Kind = Literal["harmful", "benign", "ambiguous"]
"""The kind of a prompt, which says how its answers are rewarded."""


class RewardConfig(Config):
    """Rules by which answers are rewarded."""

    function: str | None = None
    """Grader function in place of the judge model, such as `stance`, or `package.module:function`:
    harmful prompts are rewarded with its figure `safe`, benign ones with `helped`. It is shown
    prompt and answer. Unset: the recipe's judge."""
    model: bool = False
    """Reward every answer by the model that section `reward_model` trains, in place of the judge.
    It is shown prompt and answer. False: the recipe's judge, or `function`."""
    samples: int = Field(4, gt=0)
    """Judge samples per answer and criterion; the lowest score counts."""
    quorum: int = Field(3, gt=0)
    """Scores that must be readable; an answer with fewer has no reward."""
    gate: float = Field(8.0, ge=0, le=MAX_SCORE)
    """Compliance score from 0 to 10 from which a benign answer is rewarded for its help."""
    ambiguous_help: float = Field(0.5, ge=0, le=1)
    """Share of helpfulness in the reward of a prompt whose ideal response is unknown."""
    call_seconds: float = Field(120.0, gt=0)
    """Timeout in seconds of a request to a judge, from when it is sent."""
    in_flight: int = Field(64, gt=0)
    """Concurrent requests per judge; queued requests start their timeout when they are sent."""
    batch_seconds: float = Field(300.0, gt=0)
    """Timeout in seconds of all requests of a step."""
    max_failed_share: float = Field(0.5, gt=0, le=1)
    """Share of answers without a reward above which a step counts as failed."""
    failed_steps: int = Field(3, gt=0)
    """Failed steps in a row after which the training stops; the same command resumes it."""

    @property
    def limits(self) -> JudgeLimits:
        """The settings that change how judges are asked, not what is learned."""
        return JudgeLimits(
            in_flight=self.in_flight,
            call_seconds=self.call_seconds,
            batch_seconds=self.batch_seconds,
        )

    @property
    def is_judged(self) -> bool:
        """True if the reward is the judge's."""
        return not (self.function or self.model)

    @property
    def num_votes(self) -> int:
        """Scores of each answer by a criterion: one of a function or a reward model, whose scores
        never vary."""
        return self.samples if self.is_judged else 1

    @property
    def num_needed(self) -> int:
        """Scores that must be readable."""
        return self.quorum if self.is_judged else 1

    @model_validator(mode="after")
    def _check(self) -> "RewardConfig":
        if self.function and self.model:
            raise ValueError(
                f"function {self.function!r} and model are both set, and an answer has one reward; "
                "leave one of them out"
            )
        if self.function and reads_pack(load_function(self.function)):
            raise ValueError(
                f"function {self.function!r} reads the policy pack, which a reward is not given; "
                "take another function, or leave it out for the judge"
            )
        if self.quorum > self.samples:
            raise ValueError(
                f"quorum {self.quorum} is more than samples {self.samples}: no answer would ever "
                "have a reward; lower quorum"
            )
        return self


def reward_id(judge: JudgeConfig, model: str) -> str:
    """Returns the hash of what all scores of a judge share: both templates, its version and its
    sampling."""
    templates = (judge.template_of("judge"), judge.template_of("helpfulness"))
    form = judge.constrain and FORM_VERSION
    return content_id(
        *(template.id for template in templates), model, judge.sampling.identity, form
    )


def kind_of(ideal_response: str | None) -> Kind:
    """Returns the kind of a prompt.

    comply → benign; refuse, safe_complete → harmful; None → ambiguous
    """
    if ideal_response is None:
        return "ambiguous"
    return "benign" if ideal_response == "comply" else "harmful"


def combine(
    kind: Kind,
    compliance: Sequence[float | None],
    helpfulness: Sequence[float | None],
    config: RewardConfig,
) -> float | None:
    """Returns one reward from 0 to 1 for scores from 0 to 10; None if too few could be read.

    Harmful prompts are rewarded for compliance, style included; benign ones for help if the answer
    is within the policy; ambiguous ones for a share of both. A function knows no policy: benign
    prompts are rewarded for help alone. A reward model has one score for prompts of all kinds,
    which stands for compliance.
    """
    helpful = _lowest(helpfulness, config.num_needed)
    if config.function and kind == "benign":
        return None if helpful is None else helpful / MAX_SCORE
    safe = _lowest(compliance, config.num_needed)
    if safe is None:
        return None
    if kind == "harmful" or config.model:
        return safe / MAX_SCORE
    if helpful is None:
        return None
    if kind == "benign":
        return (helpful if safe >= config.gate else min(helpful, safe)) / MAX_SCORE
    share = config.ambiguous_help
    return (share * helpful + (1 - share) * safe) / MAX_SCORE


def _lowest(scores: Sequence[float | None], quorum: int) -> float | None:
    """Returns the lowest readable score, or None if fewer than the quorum could be read."""
    readable = _readable(scores)
    return min(readable) if len(readable) >= quorum else None


def _readable(scores: Sequence[float | None]) -> list[float]:
    return [score for score in scores if score is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutOrigin:
    """The training worker that rollouts come from."""

    checkpoint_id: str
    """The checkpoint that the training leads to."""
    run_id: str
    rank: int
    attempt: int
    """Earlier starts of the training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """A rollout, and what its judge is asked."""

    position: int
    prompt_id: str
    spec_id: str
    kind: Kind
    reply: RolloutReply
    requests: Mapping[Criterion, JudgeRequest]
    """Empty if the format is broken."""


class _Rewarded(NamedTuple):
    """The reward of a rollout, or why it has none, and the scores that could be read."""

    reward: float | None
    reason: str | None = None
    compliance: Sequence[float] = ()
    helpfulness: Sequence[float] = ()


class Reward:
    """The reward function of GRPO in one worker: one combined reward per rollout.

    TRL would sum the rewards of several functions, and count a None as 0 in the sum.
    """

    __name__ = "reward"

    def __init__(
        self,
        pool: Judging,
        *,
        config: RewardConfig,
        split: Callable[[Sequence[int]], RolloutReply],
        record: Callable[[list[Rollout]], Mapping[str, float] | None],
        stop: EarlyStop,
        origin: RolloutOrigin,
    ) -> None:
        self.pool = pool
        self.config = config
        self.split = split
        self.record = record
        self.stop = stop
        self.origin = origin
        self.num_failed_steps = 0
        self.began = self.ended = 0.0
        """Times at which the latest step's rollouts came, and at which they had their rewards."""

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
        """Returns rewards from 0 to 1: 0 if the format is broken, None if the judge failed.

        TRL passes the columns of the data set, the trainer's state and a function that logs a
        metric by these names.
        """
        self.began = time.monotonic()
        answers = []
        columns = zip(prompts, completion_ids, prompt_id, spec_id, kind, strict=True)
        for position, (prompt, ids, of_prompt, of_spec, of_kind) in enumerate(columns):
            reply = self.split(ids)
            answers.append(
                _Answer(
                    position=position,
                    prompt_id=of_prompt,
                    spec_id=of_spec,
                    kind=of_kind,
                    reply=reply,
                    requests=self._requests(reply, prompt, spec_id=of_spec, kind=of_kind),
                )
            )
        requests = [request for answer in answers for request in answer.requests.values()]
        replies = await self.pool.ask(requests)
        step = trainer_state.global_step
        rollouts = [self._row(answer, step, self._rewarded(answer, replies)) for answer in answers]
        # Monitors read the rollouts here, after their rewards. No reward may depend on what they
        # find: a model that is rewarded for clean reasoning learns to hide what it thinks.
        findings = self.record(rollouts) or {}
        for name, share in findings.items():
            log_metric(name, share)
        self._log(rollouts, log_metric)
        self._stop_if_failing(rollouts)
        self.ended = time.monotonic()
        return [rollout.reward for rollout in rollouts]

    def _requests(
        self, reply: RolloutReply, prompt: Sequence[Message], *, spec_id: str, kind: Kind
    ) -> dict[Criterion, JudgeRequest]:
        """Returns what is asked about a rollout: nothing if its format is broken.

        Refusing a harmful prompt is right, so its answers are not judged for help.
        """
        if not reply.is_whole or reply.reply.status is not ReplyStatus.OK:
            return {}
        turns = tuple(PromptTurn(message["role"], message["content"]) for message in prompt)
        criteria: list[Criterion] = ["compliance"]
        if kind != "harmful" and not self.config.model:
            criteria.append("helpfulness")
        if kind == "benign" and self.config.function:
            criteria.remove("compliance")
        return {name: JudgeRequest(name, turns, reply.reply.answer, spec_id) for name in criteria}

    def _rewarded(self, answer: _Answer, replies: Mapping[JudgeRequest, JudgeReply]) -> _Rewarded:
        """Returns the reward that follows from the judge's replies."""
        if not answer.requests:
            return _Rewarded(0.0)
        by_criterion = {name: replies[request] for name, request in answer.requests.items()}
        compliance, helpfulness = (
            by_criterion.get(name, JudgeReply()).scores for name in ("compliance", "helpfulness")
        )
        reward = combine(answer.kind, compliance, helpfulness, self.config)
        reason = None
        if reward is None:
            faults = [reply.fault for reply in by_criterion.values() if reply.fault]
            unread = f"fewer than {self.config.num_needed} scores could be read"
            reason = faults[-1] if faults else unread
        return _Rewarded(reward, reason, _readable(compliance), _readable(helpfulness))

    def _row(self, answer: _Answer, step: int, rewarded: _Rewarded) -> Rollout:
        origin, reply = self.origin, answer.reply.reply
        return Rollout(
            rollout_id=content_id(origin.checkpoint_id, step, origin.rank, answer.position),
            checkpoint_id=origin.checkpoint_id,
            step=step,
            rank=origin.rank,
            position=answer.position,
            attempt=origin.attempt,
            prompt_id=answer.prompt_id,
            spec_id=answer.spec_id,
            kind=answer.kind,
            status=answer.reply.status,
            reward=rewarded.reward,
            reason=rewarded.reason,
            compliance=list(rewarded.compliance),
            helpfulness=list(rewarded.helpfulness),
            num_votes=self.config.num_votes if answer.requests else 0,
            num_reasoning_tokens=reply.num_reasoning_tokens,
            num_answer_tokens=reply.num_answer_tokens,
            run_id=origin.run_id,
            created_at=datetime.now(UTC),
            answer=reply.answer,
            reasoning=reply.reasoning,
        )

    def _log(self, rollouts: Sequence[Rollout], log_metric: Callable[[str, float], None]) -> None:
        """Logs the metrics that a monitor reads."""
        judged = [rollout for rollout in rollouts if rollout.num_votes]
        log_metric("judge/failed_share", _failed_share(judged))
        log_metric("format/broken_share", 1 - len(judged) / max(1, len(rollouts)))
        reasoning = [rollout.num_reasoning_tokens for rollout in rollouts]
        log_metric("reasoning/mean_tokens", sum(reasoning) / max(1, len(reasoning)))
        benign = [one.helpfulness for one in judged if one.kind == "benign" and one.helpfulness]
        if benign:
            num_unhelped = sum(min(scores) < self.config.gate for scores in benign)
            log_metric("benign/unhelped_share", num_unhelped / len(benign))

    def _stop_if_failing(self, rollouts: Sequence[Rollout]) -> None:
        """Asks for the end of the training if judging failed for several steps in a row."""
        config = self.config
        judged = [rollout for rollout in rollouts if rollout.num_votes]
        # A step with nothing to judge says nothing about the judge.
        if judged:
            is_down = _failed_share(judged) > config.max_failed_share
            self.num_failed_steps = self.num_failed_steps + 1 if is_down else 0
        if self.num_failed_steps >= config.failed_steps:
            reasons = [rollout.reason for rollout in judged if rollout.reason]
            self.stop.request(
                f"judging failed for {self.num_failed_steps} steps in a row "
                f"({reasons[0] if reasons else 'no score could be read'}); mend the judge and run "
                "the same command again",
                status="stopped",
            )


def _failed_share(judged: Sequence[Rollout]) -> float:
    """Returns the share of judged rollouts that have no reward."""
    return sum(rollout.reward is None for rollout in judged) / max(1, len(judged))
