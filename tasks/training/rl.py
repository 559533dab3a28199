"""checkpoints ← prompts and a judge: GRPO whose reward is the judge of the filter.

The trained model answers without any spec; the judge, which has the spec, is shown prompt and
answer and never the reasoning. Every rollout is a row. Monitors end a training that collapses.
"""

import random
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import duckdb
from pydantic import Field, model_validator

from specs.policy import Spec, spec_key
from specs.replies import CLOSE_TAG, OPEN_TAG, find_closing, split_tokens
from tasks.engine.chat_template import ChatTemplate
from tasks.training.monitor import MonitorConfig, _watching
from tasks.training.reward import Kind, Panel, Reward, RewardConfig, RolloutReply, kind_of
from tasks.training.trainer import (
    DataError,
    EarlyStop,
    Finished,
    Job,
    TrainingConfig,
    WorkersConfig,
    fit,
    prepare,
    run,
)
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import ROLLOUTS


class RlWorkersConfig(WorkersConfig):
    """What reinforcement learning runs on; none of it changes what is learned."""

    judges: int = Field(1, gt=0)
    """Engines that judge for the reward, each a copy of the recipe's judge."""
    use_vllm: bool = False
    """Roll out with vLLM beside the trainer on its GPU; else with transformers."""


class RlConfig(TrainingConfig):
    """How a model is refined by reinforcement learning."""

    learning_rate: float = Field(1e-6, gt=0)
    """Highest learning rate."""
    steps: int = Field(200, gt=0)
    """Optimiser steps; each learns from batch_size fresh rollouts."""
    samples: int = Field(8, gt=1)
    """Rollouts of each prompt: the group that a reward is compared with."""
    temperature: float = Field(1.0, gt=0)
    """Temperature of the rollouts."""
    max_tokens: int = Field(4096, gt=0)
    """Longest rollout; what is longer is cut, counts as 0 and is not itself learned from."""
    beta: float = Field(0.0, ge=0)
    """Weight of the distance from the model it begins from."""
    loss: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = "dapo"
    """Which loss of TRL's GRPOTrainer."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What the advantage is divided by the deviation of."""
    reward_on: Literal["all", "answer"] = "all"
    """Tokens that the reward moves: all, or those after the reasoning."""
    mix: dict[Literal["harmful", "benign", "ambiguous"], float] = {}
    """Shares of the kinds of prompts; none: as they come."""
    prompts: Literal["all", "undecided"] = "all"
    """`undecided` leaves out prompts whose completions were always or never accepted."""
    reward: RewardConfig = RewardConfig()
    """How answers are rewarded."""
    monitor: MonitorConfig = MonitorConfig()
    """When the training is ended early."""
    workers: RlWorkersConfig = RlWorkersConfig()
    """What the training runs on."""

    @model_validator(mode="after")
    def _check_groups(self) -> "RlConfig":
        if self.batch_size % self.samples:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of samples {self.samples}; change "
                "one of them"
            )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class RlPrompt:
    """A prompt to roll out."""

    prompt_id: str
    messages: list[dict[str, str]]
    categories: list[str]
    kind: str


def choose_prompts(
    connection: duckdb.DuckDBPyConnection,
    config: RlConfig,
    *,
    generation_id: str,
    judging_id: str,
) -> list[RlPrompt]:
    """The prompts of relation `asked(prompt_id, categories)` in the mix that is wanted.

    The same ones each time. Raises DataError where there is none, or none of a kind wanted.
    """
    rows = (
        connection.sql(
            """
            SELECT p.prompt_id, p.messages, a.categories, p.ideal_response
            FROM asked AS a
            JOIN prompts AS p USING (prompt_id)
            WHERE len(a.categories) > 0
              AND (
                NOT $undecided
                OR p.prompt_id IN (
                    SELECT c.prompt_id
                    FROM completions AS c
                    JOIN verdicts AS v USING (completion_id)
                    WHERE c.generation_id = $generation_id AND v.judging_id = $judging_id
                    GROUP BY c.prompt_id
                    HAVING bool_or(v.verdict = 'accepted')
                       AND bool_or(v.verdict IN ('rejected', 'failed'))
                )
              )
            ORDER BY p.prompt_id
            """,
            params={
                "undecided": config.prompts == "undecided",
                "generation_id": generation_id,
                "judging_id": judging_id,
            },
        )
        .to_arrow_table()
        .to_pylist()
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
    return _mixed(prompts, config.mix)


def _mixed(prompts: list[RlPrompt], mix: Mapping[Kind, float]) -> list[RlPrompt]:
    """As many prompts as the scarcest kind of the mix allows, in the order of their ids."""
    shares = {kind: share for kind, share in mix.items() if share > 0}
    if not shares:
        return prompts
    found = {kind: [one for one in prompts if one.kind == kind] for kind in shares}
    missing = [kind for kind, some in found.items() if not some]
    if missing:
        raise DataError(f"rl.mix wants {missing[0]} prompts and there are none; set it to 0")
    whole = sum(shares.values())
    total = min(len(found[kind]) * whole / share for kind, share in shares.items())
    chosen = [
        one
        for kind, share in shares.items()
        for one in found[kind][: max(1, round(total * share / whole))]
    ]
    return sorted(chosen, key=lambda one: one.prompt_id)


def train(
    job: Job,
    prompts: Sequence[RlPrompt],
    *,
    specs: Mapping[str, Spec],
    judges: Sequence[Any],
    home: Home,
    run_id: str,
) -> Finished:
    """Refines the model; a training that was killed goes on from its last checkpoint.

    `specs` are by categories joined with `+`. Each worker writes the rollouts of its steps.
    """
    rows = [
        {
            "prompt": one.messages,
            "prompt_id": one.prompt_id,
            "spec_id": specs[spec_key(one.categories)].id,
            "kind": one.kind,
        }
        for one in prompts
    ]
    return fit(_loop, job, rows=rows, judges=list(judges), home=home, run_id=run_id)


def _loop(settings: dict[str, Any]) -> None:
    """What each worker does."""
    job: Job = settings["job"]
    prepare(job)
    import datasets
    import ray.train
    from transformers import AutoTokenizer
    from trl import GRPOConfig as Arguments
    from trl import GRPOTrainer

    config = job.config
    assert isinstance(config, RlConfig)
    tokenizer = AutoTokenizer.from_pretrained(job.model, revision=job.revision)
    chats = ChatTemplate(tokenizer, chat_template_kwargs=job.chat_template_kwargs)
    home: Home = settings["home"]
    stop = EarlyStop()
    reward = Reward(
        Panel(settings["judges"], config.reward),
        split=partial(split, tokenizer, chats.prefilled, job.end_ids),
        record=partial(write_shard, home, ROLLOUTS),
        stop=stop.because,
        checkpoint_id=job.checkpoint_id,
        run_id=settings["run_id"],
        rank=ray.train.get_context().get_world_rank(),
        attempt=_attempt(home, job.checkpoint_id),
    )
    rows = [{**row, "prompt": chats.neutral(row["prompt"])} for row in settings["rows"]]
    learned = datasets.Dataset.from_list(rows).select(order(len(rows), config))
    arguments = Arguments(**{**job.arguments(), **_arguments(job, config)})
    trainer = GRPOTrainer(
        model=job.model,
        args=arguments,
        train_dataset=learned,
        processing_class=tokenizer,
        reward_funcs=reward,
        peft_config=job.adapters(),
        rollout_func=partial(_answers_only, tokenizer) if config.reward_on == "answer" else None,
        callbacks=[_watching(config.monitor, reward, stop)],
    )
    run(trainer, job, stop)


def order(num_prompts: int, config: RlConfig) -> list[int]:
    """The prompts of every step, one after the other: shuffled anew each time all had their turn.

    A training that goes on finds the same order, which is why no sampler draws it.
    """
    rng = random.Random(config.seed)
    wanted = config.steps * config.batch_size // config.samples
    chosen: list[int] = []
    while len(chosen) < wanted:
        chosen += rng.sample(range(num_prompts), num_prompts)
    return chosen[:wanted]


def _arguments(job: Job, config: RlConfig) -> dict[str, Any]:
    """Arguments of GRPO beyond those of all trainers."""
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
        "log_completions": False,
        "chat_template_kwargs": dict(job.chat_template_kwargs),
    }


def _attempt(home: Home, checkpoint_id: str) -> int:
    """How often this training has begun before, as its rollouts say."""
    query = "SELECT coalesce(max(attempt) + 1, 0) FROM rollouts_raw WHERE checkpoint_id = ?"
    [(attempt,)] = connect(home).execute(query, [checkpoint_id]).fetchall()
    return int(attempt)


def split(tokenizer: Any, prefilled: bool, end_ids: Set[int], ids: Sequence[int]) -> RolloutReply:
    """A rollout's token ids in reasoning and answer, by the rule of the whole product."""
    finished = bool(ids) and ids[-1] in end_ids
    said = list(ids[:-1] if finished else ids)
    encode = partial(tokenizer.encode, add_special_tokens=False)
    reply = split_tokens(
        said,
        open_ids=encode(OPEN_TAG),
        close_ids=encode(CLOSE_TAG),
        decode=partial(tokenizer.decode, skip_special_tokens=False),
        prefilled=prefilled,
    )
    return RolloutReply(reply, finished)


def _answers_only(tokenizer: Any, prompts: list[Any], trainer: Any) -> dict[str, Any]:
    """Rollouts of which only what follows the reasoning is moved by the reward.

    Uses two private methods of TRL's trainer, which a test holds at the locked version.
    """
    prompt_ids, images, fields = trainer._tokenize_prompts(prompts)
    completion_ids, logprobs = trainer._generate_single_turn(
        prompt_ids, images, fields, trainer.num_generations
    )
    decode = partial(tokenizer.decode, skip_special_tokens=False)
    close = tokenizer.encode(CLOSE_TAG, add_special_tokens=False)
    return {
        "prompt_ids": prompt_ids,
        "completion_ids": completion_ids,
        "logprobs": logprobs,
        "env_mask": [answer_mask(ids, close, decode) for ids in completion_ids],
    }


def answer_mask(
    ids: Sequence[int], close_ids: Sequence[int], decode: Callable[[Sequence[int]], str]
) -> list[int]:
    """1 on the tokens after the first closing tag, 0 before; 0 on all where it is never closed."""
    _, after = find_closing(list(ids), 0, close_ids, decode)
    return [0] * after + [1] * (len(ids) - after)
