"""The judge actors of a training, and how a worker reaches them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from specs.policy import Spec
from specs.prompts import Message, helpfulness_messages, judge_messages, load_template
from specs.replies import VERDICT_REGEX, read_verdict
from tasks.data.judge import JudgeConfig
from tasks.engine.cluster import end_actors
from tasks.engine.pool import count_replicas
from tasks.engine.requests import Engine, EngineConfig, EngineError, Request

Question = Literal["compliance", "helpfulness"]


@dataclass(frozen=True, slots=True)
class Item:
    """All that a judge is given of a rollout."""

    question: Question
    messages: tuple[tuple[str, str], ...]
    """Role and text of each turn of the prompt."""
    answer: str
    spec_id: str


class JudgeActor:
    """A judge behind Ray: makes the messages, asks its engine, reads the votes."""

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        config: JudgeConfig,
        specs: Mapping[str, Spec],
        num_votes: int,
    ) -> None:
        self.engine = make_engine()
        self.config = config
        self.specs = specs
        self.num_votes = num_votes

    async def start(self) -> None:
        """Loads the model."""
        if start := getattr(self.engine, "start", None):
            await start()

    async def stop(self) -> None:
        """Frees what the engine holds."""
        if stop := getattr(self.engine, "stop", None):
            await stop()

    async def votes(self, item: Item) -> list[float | None]:
        """Scores from 0 to 10; None for each that could not be had."""
        request = Request(
            messages=self._messages(item),
            num_samples=self.num_votes,
            sampling=self.config.sampling,
            pattern=VERDICT_REGEX if self.config.constrain else None,
        )
        [samples] = await self.engine.generate([request])
        return [
            None
            if sample.fault or sample.finish_reason == "length"
            else read_verdict(sample.reply).score
            for sample in samples
        ]

    def _messages(self, item: Item) -> list[Message]:
        turns: list[Message] = [{"role": role, "content": text} for role, text in item.messages]
        if item.question == "helpfulness":
            template = load_template("helpfulness", "spec_first")
            return helpfulness_messages(template, turns, answer=item.answer)
        return judge_messages(
            load_template("judge", self.config.template),
            turns,
            spec=self.specs[item.spec_id],
            answer=item.answer,
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
        num_votes: int,
        name: str,
    ) -> "Judges":
        """Starts them and waits until their models are loaded, before a trainer takes its place.

        Raises EngineError where a model cannot be loaded.
        """
        import ray
        from ray.exceptions import RayError

        from tasks.engine.vllm_engine import VLLMEngine

        room = count_replicas(engine)
        found = engine.model_copy(update={"model": engine.model_path})
        actor = ray.remote(JudgeActor)
        handles = [
            actor.options(
                name=f"judge-{name}-{number}",
                num_cpus=engine.num_cpus,
                num_gpus=engine.tensor_parallel_size if engine.use_gpu else 0,
                max_restarts=-1,
                max_task_retries=1,
                max_concurrency=1000,
            ).remote(partial(VLLMEngine, found), judge, specs, num_votes)
            for number in range(room)
        ]
        judges = cls(handles)
        try:
            ray.get([handle.start.remote() for handle in handles])
        except RayError as error:
            judges.stop()
            words = str(getattr(error, "cause", None) or error).strip().splitlines()
            raise EngineError(f"no judge from {engine.model}: {words[-1]}") from error
        return judges

    def stop(self) -> None:
        """Ends them and frees what they held."""
        end_actors(self.handles)
