"""A recipe → the changes of its dry run: a model of random weights, few prompts, small limits, and
this machine's processors in place of its GPUs.

Each change is one that `--set` could make, with its reason. All else stays as the recipe has it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.recipe import Recipe
from tasks.engine.random_weights import CONTEXT, SCORE
from tasks.engine.requests import EngineConfig, Sampling
from tasks.evaluation.evaluation import EvaluateConfig
from tasks.training.rl import RlConfig
from tasks.training.sft import SftConfig

FEW = "few and short"
PROCESSORS = "processors in place of GPUs"
OWN_PROMPTS = "a few prompts about the rules of the pack stand in its place"
LEFT_OUT: Mapping[str, str] = {
    "midtrain": "random weights write no documents to learn",
    "dpo": "random weights make no pairs of a better and a worse completion",
    "reward_model": "random weights make no pairs of a better and a worse answer",
    "calibrate": "a command of its own, precept calibrate",
    "ablate": "a command of its own, precept ablate",
    "nightly": "a schedule, which precept serve follows",
    "fill": "a command of its own, precept policies fill",
    "drift": "compares with the refreshes before, and there is none",
    "license": "a line of the card that precept export writes",
    "gpu_hour_price": "a price, which no step of the chain reads",
    "collect.conflicts": "the prompts have no labels that contradict each other",
    "judge.show_metadata": "the prompts have no metadata",
    "stage.wave_rows": "more rows than a dry run has",
    "stage.error_attempts": "counts over several runs, and there is one",
    "stage.max_error_share": "a share of 100 rows or more, and there are fewer",
    "sft.replay": "repeats examples of the refreshes before, and there is none",
    "sft.start": "a checkpoint of the trainings before, and there is none",
    "rl.monitor": "compares windows of more steps than a dry run has",
    "evaluate.limit": "the suite of a dry run is small already",
    "evaluate.multiturn": "random weights hold no conversation",
    "evaluate.faithfulness": "random weights have no reasoning to tamper with",
}
"""Sections and keys that a dry run leaves out, with the reason."""
_OF_GPUS: Mapping[str, tuple[Any, str]] = {
    "gpu_memory_utilization": (None, "memory of a GPU"),
    "gpu_share": (None, "share of a GPU"),
    "judge_gpu_share": (None, "share of a GPU"),
    "tensor_parallel_size": (1, "several GPUs"),
    "enforce_eager": (True, "compiled graphs of a GPU"),
    "use_vllm": (False, "vLLM shares a GPU with the trainer; transformers rolls out"),
}
"""Keys whose effect needs a GPU: the value that a CPU gives each, if any, and its subject."""
_OF_PROMPTS = ("sources", "traces")
_ENGINE_ARGUMENTS = ("enable_prefix_caching", "enable_chunked_prefill", "max_logprobs", "seed")
"""Arguments of vLLM that its CPU build takes as a GPU does."""
_TRAINER_ARGUMENTS = ("gradient_checkpointing", "dataloader_", "ddp_")
"""Beginnings of arguments of TRL that have their effect on a CPU as well."""

_CPU_BLOCK = 32
"""Tokens of which a block is a multiple in vLLM's CPU build."""
_REPLY_TOKENS = 128
"""Longest outputs of most stages."""
_GRADE_TOKENS = 768
"""Longest outputs of graders, which have a line for each of some twenty propositions."""


@dataclass(frozen=True, slots=True)
class Change:
    """A key of the recipe that a dry run sets, and why."""

    key: str
    value: Any
    why: str
    is_left_out: bool = False
    """True if nothing of what the recipe says there is tried, not even in small."""

    def __str__(self) -> str:
        """Returns the change as `--set` takes it."""
        return f"{self.key}={_toml(self.value)}"


def _toml(value: Any) -> str:
    """Returns a value in TOML, whose strings, numbers and lists are those of JSON."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def reason_left_out(key: str, value: Any = None) -> str | None:
    """Returns why a dry run leaves a key with its value out, or None if it does not."""
    *sections, name = key.split(".")
    places = (".".join([*sections, name][:depth]) for depth in range(1, len(sections) + 2))
    if place := next((place for place in places if place in LEFT_OUT), None):
        return LEFT_OUT[place]
    if sections and sections[0] in _OF_PROMPTS:
        is_kept = sections[0] == "sources" and name == "assign_category"
        return None if is_kept else OWN_PROMPTS
    if "endpoint" in sections:
        return "a server, in whose place an engine of our own answers"
    if name == "revision":
        return "the weights that it names are not used"
    if name in _OF_GPUS and value != _OF_GPUS[name][0]:
        return f"only on a GPU: {_OF_GPUS[name][1]}"
    if sections[-1:] == ["engine_args"] and name not in _ENGINE_ARGUMENTS:
        return "an argument of vLLM that its CPU build may not take"
    if sections[-2:] == ["workers", "arguments"] and not name.startswith(_TRAINER_ARGUMENTS):
        return "an argument of trainers on GPUs"
    return None


def engines_of(recipe: Recipe) -> dict[str, EngineConfig]:
    """Returns the engines of a recipe by the names of their sections, that of the student among
    them if it is trained or evaluated."""
    engines = dict(recipe.engines)
    if (recipe.trainings or recipe.evaluate) and not recipe.student:
        engines.setdefault("engine", recipe.engine)
    return engines


def changes_of(recipe: Recipe, folder: Path) -> list[Change]:
    """Returns the changes for a dry run of a recipe, whose models lie in `folder` by the names of
    their sections, and whose files in its folder `data`."""
    data = folder / "data"
    changes = [
        change
        for name, engine in engines_of(recipe).items()
        for change in _of_engine(name, engine, folder / name)
    ]
    changes += _of_data(recipe, data)
    if recipe.sft:
        changes += _of_sft(recipe.sft, data)
    if recipe.rl:
        changes += _of_rl(recipe.rl)
    if recipe.evaluate:
        changes += _of_evaluation(recipe.evaluate, data)
    return changes


def _of_engine(name: str, engine: EngineConfig, model: Path) -> Iterator[Change]:
    """Yields the changes of an engine that serves the model in a folder."""
    kept = engine.model_dump(exclude_unset=True, exclude={"endpoint", "revision"})
    arguments = {
        key: value
        for key, value in engine.engine_args.items()
        if not reason_left_out(f"{name}.engine_args.{key}", value)
    }
    context = max(engine.max_model_len or 0, CONTEXT)
    # Without chunks a step takes a whole prompt.
    is_chunked = arguments.get("enable_chunked_prefill", True)
    step = min(engine.max_num_batched_tokens, 4096) if is_chunked else context
    small = {
        "use_gpu": (False, PROCESSORS),
        "replicas": (1, PROCESSORS),
        "tensor_parallel_size": (1, PROCESSORS),
        "num_cpus": (0.5, "room for the trainer beside it"),
        "max_num_seqs": (min(engine.max_num_seqs, 16), FEW),
        "max_num_batched_tokens": (step, FEW),
        "max_model_len": (context, "room for specs in the tokens of the tokenizer that ships"),
        "block_size": (
            -(-engine.block_size // _CPU_BLOCK) * _CPU_BLOCK,
            "a block that vLLM's CPU build has",
        ),
        "engine_args": (arguments, "those that vLLM's CPU build takes"),
    }
    what = "random weights in 2 layers of the same architecture"
    if engine.endpoint is None:
        yield Change(f"{name}.model", str(model), what)
        for key, (value, why) in small.items():
            yield Change(f"{name}.{key}", value, why)
        return
    values = {key: value for key, (value, _) in small.items()}
    why = f"{what}, in an engine of our own: the server and its settings stay untried"
    yield Change(name, kept | values | {"model": str(model)}, why)


def _of_data(recipe: Recipe, data: Path) -> Iterator[Change]:
    """Yields the changes of the stages of a refresh, whose prompts lie in a folder."""
    columns = {"prompt": "prompt", "ideal_response": "ideal_response"}
    if recipe.sources:
        sources: list[dict[str, Any]] = [
            {"name": "labelled", "path": str(data / "labelled.jsonl"), "category": "category"}
            | columns
        ]
        if recipe.assigns:
            path = str(data / "unlabelled.jsonl")
            sources.append({"name": "unlabelled", "path": path, "assign_category": True} | columns)
        yield Change("sources", sources, OWN_PROMPTS)
    if recipe.traces:
        traces = {"name": "traces", "path": str(data / "traces.jsonl"), "model": "example"}
        traces |= columns | {name: name for name in ("category", "reasoning", "answer")}
        if any(trace.scores for trace in recipe.traces):
            traces |= {"scores": "score", "judge": "example"}
        yield Change("traces", [traces], OWN_PROMPTS)
    yield Change("collect.decontaminate", [], "evaluates on prompts of its own", is_left_out=True)
    yield Change("collect.near_duplicate_threshold", 1.0, "the few prompts are much alike")
    yield Change("curate.require_citation", False, "random weights cite no rule")
    if recipe.curate.max_group_ratio is not None:
        yield Change("curate.max_group_ratio", 1000.0, "too few prompts for groups of equal size")
    yield Change("generate.samples", min(recipe.generate.samples, 2), FEW)
    yield _shorter("generate.sampling", recipe.generate.sampling, _REPLY_TOKENS)
    yield Change("judge.samples", min(recipe.judge.samples, 2), FEW)
    threshold = min(recipe.judge.threshold, float(SCORE))
    yield Change("judge.threshold", threshold, f"random weights always give {SCORE}")
    yield _shorter("judge.sampling", recipe.judge.sampling, _REPLY_TOKENS)


def _shorter(key: str, sampling: Sampling, max_tokens: int) -> Change:
    """Returns the change to the same sampling with shorter outputs: whole, because a key alone
    would set the others back to the defaults of any sampling."""
    shorter = {"max_tokens": min(sampling.max_tokens, max_tokens)}
    return Change(key, sampling.model_dump() | shorter, FEW)


def _of_training(name: str, config: SftConfig | RlConfig, *, batch_size: int) -> Iterator[Change]:
    """Yields the changes of a training with so many rows a step."""
    workers = config.workers
    num_workers = min(workers.num_workers, 2)
    if batch_size % num_workers:
        num_workers = 1
    rows_at_once = min(workers.rows_at_once, 2)
    if batch_size % (num_workers * rows_at_once):
        rows_at_once = 1
    yield Change(f"{name}.batch_size", batch_size, FEW)
    yield Change(f"{name}.workers.use_gpu", False, PROCESSORS)
    yield Change(f"{name}.workers.num_workers", num_workers, PROCESSORS)
    yield Change(f"{name}.workers.num_cpus", 0.5, PROCESSORS)
    yield Change(f"{name}.workers.num_threads", 1, PROCESSORS)
    yield Change(f"{name}.workers.rows_at_once", rows_at_once, FEW)
    yield Change(f"{name}.workers.save_steps", 1, FEW)
    # As on a GPU, where these are the defaults.
    yield Change(f"{name}.workers.bf16", workers.bf16 is not False, "as on a GPU")
    kept = {
        key: value
        for key, value in workers.arguments.items()
        if not reason_left_out(f"{name}.workers.arguments.{key}", value)
    }
    arguments = {"gradient_checkpointing": True} | kept
    yield Change(f"{name}.workers.arguments", arguments, "as on a GPU, for what a CPU knows")
    yield Change(f"{name}.report_to", "none", "a tracker is told of no dry run", is_left_out=True)


def _of_sft(config: SftConfig, data: Path) -> Iterator[Change]:
    """Yields the changes of a fine-tuning, whose chats of capability lie in a folder."""
    yield from _of_training("sft", config, batch_size=min(config.batch_size, 4))
    yield Change("sft.epochs", min(config.epochs, 1.0), FEW)
    if config.capability:
        path = str(data / "capability.jsonl")
        yield Change("sft.capability.path", path, "a few chats about sums")
    if config.start:
        yield Change("sft.start", "latest", LEFT_OUT["sft.start"], is_left_out=True)


def _of_rl(config: RlConfig) -> Iterator[Change]:
    """Yields the changes of a reinforcement learning."""
    samples = min(config.samples, 4)
    num_groups = min(config.batch_size // config.samples, 2)
    yield from _of_training("rl", config, batch_size=num_groups * samples)
    yield Change("rl.samples", samples, FEW)
    yield Change("rl.steps", min(config.steps, 2), FEW)
    yield Change("rl.max_tokens", min(config.max_tokens, _REPLY_TOKENS // 4), FEW)
    yield Change("rl.prompts", "all", "random weights leave no prompt undecided")
    yield Change("rl.workers.judges", min(config.workers.judges, 2), PROCESSORS)
    yield Change("rl.workers.use_vllm", False, _OF_GPUS["use_vllm"][1], is_left_out=True)
    if config.prefill:
        yield Change("rl.prefill.share", 1.0, "few prompts, of which one at least begins so")
    if config.reward.model:
        yield Change("rl.reward.model", False, LEFT_OUT["reward_model"], is_left_out=True)


def _of_evaluation(config: EvaluateConfig, data: Path) -> Iterator[Change]:
    """Yields the changes of an evaluation, whose suite lies in a folder."""
    yield Change("evaluate.suites", [str(data / "suite.toml")], "a few prompts about the rules")
    yield Change("evaluate.samples", min(config.samples, 2), FEW)
    yield _shorter("evaluate.sampling", config.sampling, _REPLY_TOKENS)
    for number, grader in enumerate(config.graders):
        place = f"evaluate.graders.{number}"
        yield Change(f"{place}.suites", [], "the one suite")
        yield Change(f"{place}.samples", min(grader.samples, 2), FEW)
        if grader.rubric:
            yield _shorter(f"{place}.sampling", grader.sampling, _GRADE_TOKENS)
