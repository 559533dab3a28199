"""The judge of the filter as actors of a training, and the workers' way to them.

A judge receives a `JudgeRequest`, which has no field for reasoning: what a model in training thinks
is hidden from its judge by type. A judge that fails or hangs gives a fault in place of scores.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from specs.policy import Spec
from specs.prompts import Message, answer_messages, judge_messages
from specs.replies import MAX_SCORE, read_verdict
from specs.template import Template, TemplateKind
from tasks.data.judge import JudgeConfig
from tasks.engine.cluster import end_actors
from tasks.engine.faults import message_of, root_cause
from tasks.engine.pool import actor_options, count_replicas, engine_maker
from tasks.engine.requests import (
    Engine,
    EngineConfig,
    EngineError,
    Request,
    require_asked,
)
from tasks.evaluation.graders import GraderFunction
from warehouse.home import Home
from warehouse.tables import content_id

Criterion = Literal["compliance", "helpfulness"]


class PromptTurn(NamedTuple):
    """One turn of a prompt, which can be hashed."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """All that a judge is given of a rollout."""

    criterion: Criterion
    prompt: tuple[PromptTurn, ...]
    answer: str
    spec_id: str


@dataclass(frozen=True, slots=True)
class JudgeReply:
    """The scores of an answer, or why there are none."""

    scores: Sequence[float | None] = ()
    """One for each judge sample, from 0 to 10; None if it could not be read."""
    fault: str | None = None


class Judging(Protocol):
    """Whoever scores the answers of a training."""

    async def ask(self, requests: Sequence[JudgeRequest]) -> dict[JudgeRequest, JudgeReply]:
        """Returns the reply to each request."""
        ...


class FunctionJudge:
    """A grader function as the judge of a training: it needs no model and no actor."""

    def __init__(self, function: GraderFunction) -> None:
        self._function = function

    async def ask(self, requests: Sequence[JudgeRequest]) -> dict[JudgeRequest, JudgeReply]:
        """Returns the score of each request, from 0 to 10, or the exception that the function
        raised."""
        return {request: self._grade(request) for request in requests}

    def _grade(self, request: JudgeRequest) -> JudgeReply:
        name, ideal_response = _FIGURES[request.criterion]
        try:
            scores = self._function(
                [{"role": turn.role, "content": turn.content} for turn in request.prompt],
                answer=request.answer,
                cited=[],
                ideal_response=ideal_response,
                target=None,
            )
        except Exception as error:  # a function of a user's may raise anything
            return JudgeReply(fault=f"{type(error).__name__}: {message_of(error)}")
        value = scores.get(name)
        if value is None:
            return JudgeReply(fault=f"rl.reward.function gave no figure {name!r}")
        return JudgeReply(scores=[value * MAX_SCORE])


_FIGURES: Mapping[Criterion, tuple[str, str]] = {
    "compliance": ("safe", "refuse"),
    "helpfulness": ("helped", "comply"),
}
"""By criterion, the figure of a grader function, and the ideal response that it is told."""


class LoadedEngine(Engine, Protocol):
    """An engine that holds a model."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


def judging_templates(config: JudgeConfig) -> dict[str, Template]:
    """Returns, by kind, the templates by which a judge is asked in training."""
    kinds: tuple[TemplateKind, ...] = ("judge", "helpfulness")
    return {kind: config.template_of(kind) for kind in kinds}


class JudgeActor:
    """A judge in a process of its own: writes the messages, asks its engine, reads the scores."""

    def __init__(
        self,
        make_engine: Callable[[], LoadedEngine],
        config: JudgeConfig,
        specs: Mapping[str, Spec],
        num_samples: int,
        templates: Mapping[str, Template] | None = None,
    ) -> None:
        """`templates` are by kind, as `judging_templates` reads them where their files are."""
        self.engine = make_engine()
        self.config = config
        self.specs = specs
        self.num_samples = num_samples
        self.templates = templates or judging_templates(config)

    async def start(self) -> None:
        """Loads the model."""
        await self.engine.start()

    async def stop(self) -> None:
        """Frees what the engine holds."""
        await self.engine.stop()

    async def score(self, request: JudgeRequest) -> list[float | None]:
        """Returns a score from 0 to 10 for each judge sample; None if it cannot be read."""
        [samples] = await self.engine.generate(
            [
                Request(
                    messages=self._messages(request),
                    num_samples=self.num_samples,
                    sampling=self.config.sampling,
                    form=self.config.form(()),
                )
            ]
        )
        require_asked(samples)
        return [read_verdict(sample.reply).score if sample.is_whole else None for sample in samples]

    def _messages(self, request: JudgeRequest) -> list[Message]:
        turns: list[Message] = [
            {"role": turn.role, "content": turn.content} for turn in request.prompt
        ]
        if request.criterion == "helpfulness":
            return answer_messages(self.templates["helpfulness"], turns, answer=request.answer)
        return judge_messages(
            self.templates["judge"],
            turns,
            spec=self.specs[request.spec_id],
            answer=request.answer,
            reasoning=None,
        )


@dataclass(slots=True)
class Judges:
    """The named judge actors of one training."""

    handles: list[Any]

    @classmethod
    def start(
        cls,
        engine: EngineConfig,
        judge: JudgeConfig,
        specs: Mapping[str, Spec],
        *,
        num_samples: int,
        name: str,
        home: Home | None = None,
    ) -> "Judges":
        """Starts a judge for each replica of the engine, and waits until the models are loaded.

        `specs` are by their ids; `home` keeps the account of an endpoint. Raises RoomError if the
        cluster has no room for one, and EngineError if a model cannot be loaded.
        """
        import ray
        from ray.exceptions import RayError

        actor = ray.remote(JudgeActor)
        make_engine = engine_maker(engine, home=home)
        # A judge that dies is started again and asked once more.
        options = {**actor_options(engine), "max_task_retries": 1}
        judges = cls(
            [
                actor.options(name=f"judge-{name}-{number}", **options).remote(
                    make_engine, judge, specs, num_samples, judging_templates(judge)
                )
                for number in range(count_replicas(engine))
            ]
        )
        try:
            ray.get([handle.start.remote() for handle in judges.handles])
        except RayError as error:
            judges.stop()
            cause = root_cause(error)
            raise EngineError(
                f"no judge from {engine.model}: {message_of(cause)}; check the recipe's judge and "
                "the memory it asks for"
            ) from error
        return judges

    def stop(self) -> None:
        """Ends the actors and frees what they held."""
        end_actors(self.handles)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeLimits:
    """Limits on the requests of a training to its judges."""

    in_flight: int
    """Concurrent requests per judge."""
    call_seconds: float
    """Timeout of a request, from when it is sent to a judge."""
    batch_seconds: float
    """Timeout of all requests of a step."""


class JudgePool:
    """The judges of a training, as one of its workers asks them.

    TRL waits for a reward without any timeout, so that a judge that hangs would hang the training:
    every request has a timeout here, and so has every step.
    """

    def __init__(self, judges: Sequence[Any], limits: JudgeLimits) -> None:
        self.limits = limits
        self._judges = list(judges)
        self._loads = [0] * len(self._judges)

    async def ask(self, requests: Sequence[JudgeRequest]) -> dict[JudgeRequest, JudgeReply]:
        """Returns the reply to each request; equal requests are asked once."""
        room = asyncio.Semaphore(self.limits.in_flight * len(self._judges))
        tasks = {
            request: asyncio.ensure_future(self._ask(request, room))
            for request in dict.fromkeys(requests)
        }
        if tasks:
            _, late = await asyncio.wait(tasks.values(), timeout=self.limits.batch_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        return {request: self._reply(task) for request, task in tasks.items()}

    async def _ask(self, request: JudgeRequest, room: asyncio.Semaphore) -> list[float | None]:
        # A request that waits for room has not been sent, and its timeout has not begun.
        async with room:
            number = self._choose(request)
            self._loads[number] += 1
            try:
                reference = self._judges[number].score.remote(request)
                return await asyncio.wait_for(_wait(reference), self.limits.call_seconds)
            finally:
                self._loads[number] -= 1

    def _choose(self, request: JudgeRequest) -> int:
        """Returns the number of the judge whose cache holds the spec; if that judge has no room,
        of the one with the least to do."""
        number = int(content_id(request.criterion, request.spec_id), 16) % len(self._judges)
        if self._loads[number] < self.limits.in_flight:
            return number
        return self._loads.index(min(self._loads))

    def _reply(self, task: "asyncio.Task[list[float | None]]") -> JudgeReply:
        """Returns the reply of a task that is done."""
        if task.cancelled():
            return JudgeReply(
                fault=f"no score within the {self.limits.batch_seconds:g} s of a step"
            )
        error = task.exception()
        if error is None:
            return JudgeReply(scores=task.result())
        if isinstance(error, TimeoutError):
            return JudgeReply(fault=f"no score within {self.limits.call_seconds:g} s")
        cause = root_cause(error)
        return JudgeReply(fault=f"{type(cause).__name__}: {message_of(cause)}")


async def _wait(reference: Any) -> list[float | None]:
    """Returns the result of a call to an actor; cancels the call if it is no longer awaited."""
    import ray

    try:
        scores: list[float | None] = await reference
    except asyncio.CancelledError:
        ray.cancel(reference)
        raise
    return scores
