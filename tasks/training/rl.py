"""checkpoints ← prompts and a judge: GRPO whose reward is the judge of the filter.

The model in training answers without any spec; the judge, which has the spec, is shown prompt and
answer and never the reasoning. A function or a reward model may stand in its place. Every rollout
is a row. A monitor ends a training that collapses.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import duckdb
from pydantic import Field, model_validator

from specs.policy import Spec, spec_key
from specs.prompts import Message
from specs.replies import OPEN_TAG
from tasks import Config
from tasks.data.candidates import read_source
from tasks.data.duplicates import Evaluations
from tasks.data.judge import JudgeConfig
from tasks.data.sources import SourceConfig
from tasks.engine.chat_template import ChatTemplate
from tasks.engine.requests import EngineConfig
from tasks.evaluation.graders import FunctionGrader, GraderConfig, load_function
from tasks.monitors import RolloutMonitor
from tasks.training.checkpoint import TrainingOutcome
from tasks.training.judges import FunctionJudge, JudgePool, Judges, Judging
from tasks.training.monitor import MonitorConfig, monitor_callback
from tasks.training.reward import (
    Kind,
    Reward,
    RewardConfig,
    RolloutOrigin,
    kind_of,
    reward_id,
)
from tasks.training.reward_model import RewardModelJudge
from tasks.training.rollouts import RewardOn, roll_out, split_rollout, turns_key
from tasks.training.trainer import (
    BestBy,
    DataError,
    DataFigures,
    Job,
    TrainingConfig,
    WorkersConfig,
    fit,
)
from tasks.training.worker import EarlyStop, run_trainer, set_up
from warehouse.catalog import connect, look_up
from warehouse.home import Home
from warehouse.models import fetch_folder
from warehouse.tables import Checkpoint, content_id

_BEST = BestBy("reward", "max")


class RlWorkersConfig(WorkersConfig):
    """Resources of reinforcement learning; nothing here changes what is learned."""

    judges: int = Field(1, gt=0)
    """Engines that judge for the reward, each with the recipe's judge."""
    judge_gpu_share: float | None = Field(None, gt=0, le=1)
    """Share of a GPU for each of them. Unset: as much as the judge's engine has otherwise."""
    use_vllm: bool = False
    """Roll out with vLLM, beside the trainer on its GPU; false for transformers."""


class PrefillConfig(Config):
    """Wrong reasoning that rollouts begin with, so that the model learns to turn back from it.

    The reward moves only what follows it, and monitors read the other rollouts alone. From Peng et
    al., "Large Reasoning Models Learn Better Alignment from Flawed Thinking" (arXiv 2510.00938).
    """

    share: float = Field(0.5, gt=0, le=1)
    """Share of the prompts whose rollouts begin so. A prompt begins with the reasoning of its own
    rejected completion, else with that of an accepted one of its category, which helped where it is
    to refuse, or the other way round; a prompt without either begins as usual."""
    tokens: int = Field(256, gt=0)
    """Longest beginning in tokens; the rest of the reasoning is left out."""


class RlConfig(TrainingConfig):
    """Refinement by reinforcement learning."""

    not_defining: ClassVar[dict[str, Any]] = {
        **TrainingConfig.not_defining,
        "reward": {"call_seconds", "in_flight", "batch_seconds"},
    }
    added_later: ClassVar[frozenset[str]] = frozenset({"prefill"})

    learning_rate: float = Field(1e-6, gt=0)
    """Peak learning rate."""
    steps: int = Field(200, gt=0)
    """Optimiser steps; each learns from `batch_size` fresh rollouts."""
    samples: int = Field(8, gt=1)
    """Rollouts per prompt: the group within which rewards are compared."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature of the rollouts."""
    max_tokens: int = Field(4096, gt=0)
    """Longest rollout in tokens; a longer one is cut, is rewarded with 0 and is not learned from
    itself."""
    beta: float = Field(0.0, ge=0)
    """Weight of the KL penalty against the model that it begins from."""
    loss: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = "dapo"
    """Loss, as TRL's GRPOTrainer names it."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Rewards whose standard deviation normalises the advantage."""
    reward_on: RewardOn = "all"
    """Tokens that the reward moves: `all`, or those of the `answer` after the reasoning."""
    mix: dict[Literal["harmful", "benign", "ambiguous"], float] = {}
    """Shares of the kinds of prompts. Empty: all prompts as they come."""
    prompts: Literal["all", "undecided"] = "all"
    """Prompts to roll out: `all`, or only the `undecided`, of whose completions some were accepted
    and some were not."""
    prefill: PrefillConfig | None = None
    """Wrong reasoning that rollouts begin with. Unset: the model begins its own."""
    reward: RewardConfig = RewardConfig()
    """Rules by which answers are rewarded."""
    monitor: MonitorConfig = MonitorConfig()
    """Limits at which the training is ended early."""
    workers: RlWorkersConfig = RlWorkersConfig()
    """Resources of the training."""

    def unhashed(self) -> dict[str, Any]:
        """Returns the keys that are not hashed; a reward without a function or a model, and an
        alarm that is left as it is, are hashed as they were before there were any."""
        absent = {key for key in ("function", "model") if not getattr(self.reward, key)}
        reward = self.not_defining["reward"] | absent
        alarm = MonitorConfig.model_fields["max_flagged"].default
        monitor = {"max_flagged"} if self.monitor.max_flagged == alarm else set()
        return {**super().unhashed(), "reward": reward, "monitor": monitor}

    @model_validator(mode="after")
    def _check_groups(self) -> "RlConfig":
        if self.batch_size % self.samples:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of samples {self.samples}; "
                "change one of them"
            )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class RlPrompt:
    """A prompt to roll out."""

    prompt_id: str
    messages: list[Message]
    categories: list[str]
    kind: Kind
    prefill: str = ""
    """Wrong reasoning that its rollouts begin with. Empty: the model begins its own."""


def choose_prompts(
    connection: duckdb.DuckDBPyConnection,
    config: RlConfig,
    *,
    generation_id: str,
    judging_id: str,
) -> list[RlPrompt]:
    """Returns the prompts of relation `candidates(prompt_id, categories)` in the configured mix.

    The same ones each time. Raises DataError if there is none, or none of a kind in the mix.
    """
    rows = look_up(
        connection,
        "prompts_to_roll_out",
        undecided=config.prompts == "undecided",
        generation_id=generation_id,
        judging_id=judging_id,
    )
    prompts = [
        RlPrompt(
            prompt_id=row["prompt_id"],
            messages=row["messages"],
            categories=row["categories"],
            kind=kind_of(row["ideal_response"]),
        )
        for row in rows
    ]
    if not prompts:
        raise DataError("no prompts to roll out; run precept refresh, or set rl.prompts to all")
    prompts = _mixed(prompts, config.mix)
    if config.prefill is None:
        return prompts
    reasonings = look_up(
        connection, "wrong_reasoning", generation_id=generation_id, judging_id=judging_id
    )
    wrong = {row["prompt_id"]: row["reasoning"] for row in reasonings}
    return _prefilled(prompts, wrong, config.prefill)


def _prefilled(
    prompts: list[RlPrompt], wrong: Mapping[str, str], config: PrefillConfig
) -> list[RlPrompt]:
    """Returns the prompts, a share of them with their wrong reasoning; the same ones each time.

    Raises DataError if none of the share has any.
    """
    drawn = {
        prompt.prompt_id
        for prompt in prompts
        if random.Random(prompt.prompt_id).random() < config.share
    }
    if not drawn & wrong.keys():
        raise DataError(
            "rl.prefill finds no wrong reasoning: no completion of its prompts was rejected, and "
            "none was accepted for a prompt of the other kind in their categories; run precept "
            "refresh, or take rl.prefill out"
        )
    return [
        replace(
            prompt, prefill=wrong.get(prompt.prompt_id, "") if prompt.prompt_id in drawn else ""
        )
        for prompt in prompts
    ]


def require_unevaluated(prompts: Sequence[RlPrompt], suites: Sequence[SourceConfig]) -> None:
    """Raises DataError if a prompt is also one of these suites, which the model would be trained
    to pass."""
    for suite in suites:
        held_out = Evaluations()
        for candidate in read_source(suite):
            if not candidate.fault:
                held_out.add(candidate.messages)
        if count := sum(held_out.share(prompt.messages) for prompt in prompts):
            raise DataError(
                f"{count} prompts of rl stand in suite {suite.name!r}; add its source to "
                "collect.decontaminate"
            )


def _mixed(prompts: list[RlPrompt], mix: Mapping[Kind, float]) -> list[RlPrompt]:
    """Returns as many prompts as the scarcest kind of the mix allows, in the order of their ids."""
    shares = {kind: share for kind, share in mix.items() if share > 0}
    if not shares:
        return prompts
    by_kind = {kind: [prompt for prompt in prompts if prompt.kind == kind] for kind in shares}
    missing = [kind for kind, of_kind in by_kind.items() if not of_kind]
    if missing:
        raise DataError(f"rl.mix wants {missing[0]} prompts and there are none; set it to 0")
    whole = sum(shares.values())
    total = min(len(by_kind[kind]) * whole / share for kind, share in shares.items())
    chosen = [
        prompt
        for kind, share in shares.items()
        for prompt in by_kind[kind][: max(1, round(total * share / whole))]
    ]
    return sorted(chosen, key=lambda prompt: prompt.prompt_id)


def fingerprint(prompts: Sequence[RlPrompt], specs: Mapping[str, Spec], reward_id: str) -> str:
    """Returns the hash of what a training learns from: its prompts, their specs and the reward.

    `specs` are by the `spec_key` of the prompts' categories.
    """
    lines = (
        f"{prompt.prompt_id} {specs[spec_key(prompt.categories)].id} {prompt.kind}"
        for prompt in prompts
    )
    # A prompt that begins as usual is hashed as it was before any could begin otherwise.
    begun = (f"{prompt.prompt_id} {prompt.prefill}" for prompt in prompts if prompt.prefill)
    return content_id(reward_id, *lines, *begun)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRow:
    """A prompt as TRL has it; its fields reach the reward function by these names."""

    prompt: list[Message]
    prompt_id: str
    spec_id: str
    kind: Kind
    prefill: str = ""
    """Reasoning that its rollouts begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RlData:
    """The rows that the workers learn from, and the warehouse that records their rollouts."""

    rows: list[RolloutRow]
    judges: list[Any]
    """Handles of the judge actors; empty if the judge is not the reward."""
    home: Home
    run_id: str
    monitor: RolloutMonitor
    """The monitors that read the rollouts; no reward sees what they find."""
    reward_model: str | None = None
    """Folder of the reward model. Unset: the judge or a function is the reward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RlTraining:
    """GRPO on prompts, rewarded by the judge, a function or a reward model."""

    config: RlConfig
    prompts: Sequence[RlPrompt]
    specs: Mapping[str, Spec]
    """By the `spec_key` of the prompts' categories."""
    judge: JudgeConfig
    judge_engine: EngineConfig
    judge_model: str
    """`name@revision` of the judge."""
    home: Home
    run_id: str
    rule_ids: tuple[str, ...]
    """Ids of all rules of the pack, for the monitors."""
    reward_model: Checkpoint | None = None
    """Unset: the judge or a function is the reward."""
    name: str = "rl"
    best: BestBy = _BEST

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.prompts, self.specs, self.reward_id)

    @property
    def set_id(self) -> str | None:
        """The pairs of the reward model, from which the training learns through it."""
        return self.reward_model.set_id if self.reward_model else None

    @property
    def reward_id(self) -> str:
        """Hash of what all rewards share: the judge, the version of the function, or the
        checkpoint of the reward model."""
        if self.reward_model:
            return self.reward_model.checkpoint_id
        function = self.config.reward.function
        if function is None:
            return reward_id(self.judge, self.judge_model)
        return FunctionGrader.of(GraderConfig(name="reward", function=function)).grading_id

    @property
    def judging_engine(self) -> EngineConfig:
        """The engine of the judge, with a replica for each judge of the training."""
        workers = self.config.workers
        share = workers.judge_gpu_share or self.judge_engine.gpu_share
        return self.judge_engine.model_copy(update={"replicas": workers.judges, "gpu_share": share})

    @property
    def num_gpus(self) -> float:
        judges = self.judging_engine.num_gpus if self.config.reward.is_judged else 0
        return self.config.workers.num_gpus + judges

    def train(self, job: Job) -> TrainingOutcome:
        """Refines the model; each worker records the rollouts of its steps."""
        rows = [
            RolloutRow(
                prompt=prompt.messages,
                prompt_id=prompt.prompt_id,
                spec_id=self.specs[spec_key(prompt.categories)].id,
                kind=prompt.kind,
                prefill=prompt.prefill,
            )
            for prompt in self.prompts
        ]
        if not self.config.reward.is_judged:
            return self._fit(job, rows, judges=[])
        # Judges first: they keep their share, and workers without room are refused at once. The
        # other way round Ray Train would retry for ever to place workers.
        judges = Judges.start(
            self.judging_engine,
            self.judge,
            {spec.id: spec for spec in self.specs.values()},
            num_samples=self.config.reward.samples,
            name=job.checkpoint_id,
            home=self.home,
        )
        try:
            return self._fit(job, rows, judges=judges.handles)
        finally:
            judges.stop()

    def _fit(self, job: Job, rows: list[RolloutRow], *, judges: list[Any]) -> TrainingOutcome:
        begun = [prompt.prompt_id for prompt in self.prompts if prompt.prefill]
        scorer = self.reward_model and fetch_folder(self.home, self.reward_model.path)
        data = RlData(
            rows=rows,
            judges=judges,
            home=self.home,
            run_id=self.run_id,
            monitor=RolloutMonitor.of(self.rule_ids, self.specs.values(), begun),
            reward_model=str(scorer) if scorer else None,
        )
        return TrainingOutcome(fit(_loop, job, data), DataFigures(num_rows=len(rows)))


def _loop(job: Job, data: RlData) -> None:
    """Refines the model in one worker."""
    set_up(job)
    import datasets
    import ray.train
    from trl import GRPOConfig as Arguments
    from trl import GRPOTrainer

    config = job.config
    assert isinstance(config, RlConfig)
    tokenizer = job.load_tokenizer()
    chats = ChatTemplate(tokenizer, chat_template_kwargs=job.chat_template_kwargs)
    stop = EarlyStop()
    reward = Reward(
        _judging(data, config, chats),
        config=config.reward,
        split=partial(split_rollout, tokenizer, chats.prefilled, job.end_ids),
        record=partial(data.monitor.record, data.home),
        stop=stop,
        origin=RolloutOrigin(
            checkpoint_id=job.checkpoint_id,
            run_id=data.run_id,
            rank=ray.train.get_context().get_world_rank(),
            attempt=_next_attempt(data.home, job.checkpoint_id),
        ),
    )
    # Here TRL renders the prompts itself, and would take special tokens in them for structure.
    rows = [{**asdict(row), "prompt": chats.flat(row.prompt)} for row in data.rows]
    trainer = GRPOTrainer(
        model=job.model,
        args=Arguments(**{**job.trl_arguments(), **_grpo_arguments(job, config)}),
        train_dataset=datasets.Dataset.from_list(rows).select(rollout_order(len(rows), config)),
        processing_class=tokenizer,
        reward_funcs=reward,
        peft_config=job.peft_config(),
        rollout_func=_rollouts(tokenizer, chats, rows, config),
        callbacks=[monitor_callback(config.monitor, reward, stop)],
    )
    run_trainer(trainer, job, stop)


def _rollouts(
    tokenizer: Any, chats: ChatTemplate, rows: Sequence[Mapping[str, Any]], config: RlConfig
) -> Callable[..., dict[str, Any]] | None:
    """Returns how rollouts are made; None if TRL's own way of making them will do."""
    if config.prefill is None and config.reward_on == "all":
        return None
    opening = "" if chats.prefilled else OPEN_TAG
    most_tokens = config.prefill.tokens if config.prefill else 0
    starts = {
        turns_key(row["prompt"]): tokenizer.encode(
            f"{opening}{row['prefill']}", add_special_tokens=False
        )[:most_tokens]
        for row in rows
        if row["prefill"]
    }
    return partial(roll_out, tokenizer, starts, config.reward_on)


def _judging(data: RlData, config: RlConfig, chats: ChatTemplate) -> Judging:
    """Returns whoever scores the answers of a worker."""
    if data.reward_model:
        return RewardModelJudge(data.reward_model, chats, workers=config.workers)
    if config.reward.function:
        return FunctionJudge(load_function(config.reward.function))
    return JudgePool(data.judges, config.reward.limits)


def rollout_order(num_prompts: int, config: RlConfig) -> list[int]:
    """Returns the indices of the prompts of every step: a new shuffle once all had their turn.

    The order follows from the seed alone, not from a sampler's state, so that a training that
    resumes finds it again.
    """
    rng = random.Random(config.seed)
    num_turns = config.steps * config.batch_size // config.samples
    chosen: list[int] = []
    while len(chosen) < num_turns:
        chosen += rng.sample(range(num_prompts), num_prompts)
    return chosen[:num_turns]


def _grpo_arguments(job: Job, config: RlConfig) -> dict[str, Any]:
    """Returns the arguments of GRPO beyond those of all trainers.

    `steps_per_generation` and `num_iterations` keep their defaults, so that each step rolls out
    anew: TRL forgets the rollouts of a generation that spans several steps when it resumes.
    """
    return {
        "max_steps": config.steps,
        "num_generations": config.samples,
        "temperature": config.temperature,
        "max_completion_length": config.max_tokens,
        "mask_truncated_completions": True,
        "beta": config.beta,
        "loss_type": config.loss,
        "scale_rewards": config.scale_rewards,
        "shuffle_dataset": False,
        "use_vllm": config.workers.use_vllm,
        "vllm_mode": "colocate",
        "logging_steps": 1,
        # It would print prompts and answers; every rollout is a row anyway.
        "log_completions": False,
        "chat_template_kwargs": dict(job.chat_template_kwargs),
    }


def _next_attempt(home: Home, checkpoint_id: str) -> int:
    """Returns how often a training has begun before, as its rollouts tell."""
    [row] = look_up(connect(home), "next_attempt", checkpoint_id=checkpoint_id)
    return int(row["attempt"])
