"""What changes in a recipe for a dry run: a model of random weights, few prompts, small limits, and
this machine's processors in place of its GPUs.

Each change is one that `--set` could make, with its reason. All else stays as the recipe has it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.recipe import Recipe
from tasks.engine.requests import EngineConfig, Sampling
from tasks.evaluation.evaluation import EvaluateConfig
from tasks.training.rl import RlConfig
from tasks.training.sft import SftConfig

FEW, PROCESSORS = "few and short", "processors in place of GPUs"
LEFT_OUT: Mapping[str, str] = {
    "midtrain": "random weights write no documents to learn",
    "dpo": "random weights make no pairs of a better and a worse completion",
    "reward_model": "random weights make no pairs of a better and a worse answer",
    "calibrate": "a command of its own, precept calibrate",
    "ablate": "a command of its own, precept ablate",
    "nightly": "a schedule, which precept serve follows",
    "fill": "a command of its own, precept policies fill",
    "evaluate.multiturn": "random weights hold no conversation",
    "evaluate.faithfulness": "random weights have no reasoning to tamper with",
}
"""Sections that a dry run leaves out, with the reason."""
GPU_ALONE: Mapping[str, str] = {
    "gpu_memory_utilization": "memory of a GPU",
    "gpu_share": "share of a GPU",
    "judge_gpu_share": "share of a GPU",
    "tensor_parallel_size": "several GPUs",
    "enforce_eager": "compiled graphs of a GPU",
    "use_vllm": "vLLM shares a GPU with the trainer; transformers rolls out",
    "kv_cache_dtype": "a type that a GPU's cache has",
    "quantization": "a type that a GPU computes in",
}
"""Keys that have no effect without a GPU, with what they are about."""
_GPU_ARGUMENTS = ("vllm_", "fsdp", "deepspeed")
"""Prefixes of arguments of TRL that need one."""

_CPU_BLOCK = 32
"""Tokens of which a block is a multiple in vLLM's CPU build."""
_REPLY_TOKENS, _GRADE_TOKENS = 128, 768
"""Longest outputs: those of a grader have a line for each of some twenty propositions."""
_CONTEXT = 16384
"""Tokens that the longest spec takes with the tokenizer that ships."""


@dataclass(frozen=True, slots=True)
class Change:
    """A key of the recipe that a dry run sets, and why."""

    key: str
    value: Any
    why: str

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


def is_gpu_alone(key: str) -> str | None:
    """Returns what a key needs a GPU for, or None if it has its effect without one."""
    last = key.rpartition(".")[2]
    if last.startswith(_GPU_ARGUMENTS):
        return "an argument of trainers on GPUs"
    return GPU_ALONE.get(last)


def changes_of(recipe: Recipe, folder: Path) -> list[Change]:
    """Returns the changes for a dry run of a recipe; its models and files lie in `folder`."""
    changes = [
        change
        for name, engine in recipe.engines.items()
        for change in _of_engine(name, engine, folder / name)
    ]
    changes += _of_data(recipe, folder)
    if recipe.sft:
        changes += _of_sft(recipe.sft, folder)
    if recipe.rl:
        changes += _of_rl(recipe.rl)
    if recipe.evaluate:
        changes += _of_evaluation(recipe.evaluate, folder)
    return changes


def _of_engine(name: str, engine: EngineConfig, model: Path) -> Iterator[Change]:
    kept = engine.model_dump(exclude_unset=True, exclude={"endpoint", "revision"})
    small = {
        "use_gpu": (False, PROCESSORS),
        "replicas": (1, PROCESSORS),
        "tensor_parallel_size": (1, PROCESSORS),
        "num_cpus": (0.5, "room for the trainer beside it"),
        "max_num_seqs": (min(engine.max_num_seqs, 16), FEW),
        "max_num_batched_tokens": (min(engine.max_num_batched_tokens, 4096), FEW),
        "max_model_len": (
            max(engine.max_model_len or 0, _CONTEXT),
            "room for specs in the tokens of the tokenizer that ships",
        ),
        "block_size": (
            -(-engine.block_size // _CPU_BLOCK) * _CPU_BLOCK,
            "a block that vLLM's CPU build has",
        ),
        "engine_args": (
            {key: value for key, value in engine.engine_args.items() if not is_gpu_alone(key)},
            "none that a GPU alone takes",
        ),
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


def _of_data(recipe: Recipe, folder: Path) -> Iterator[Change]:
    why = "a few prompts about the rules of the pack"
    columns = {"prompt": "prompt", "ideal_response": "ideal_response"}
    if recipe.sources:
        sources: list[dict[str, Any]] = [
            {"name": "labelled", "path": str(folder / "labelled.jsonl"), "category": "category"}
            | columns
        ]
        if recipe.assigns:
            path = str(folder / "unlabelled.jsonl")
            sources.append({"name": "unlabelled", "path": path, "assign_category": True} | columns)
        yield Change("sources", sources, why)
    if recipe.traces:
        traces = {"name": "traces", "path": str(folder / "traces.jsonl"), "model": "example"}
        traces |= columns | {name: name for name in ("category", "reasoning", "answer")}
        if any(trace.scores for trace in recipe.traces):
            traces |= {"scores": "score", "judge": "example"}
        yield Change("traces", [traces], why)
    yield Change("collect.decontaminate", [], "none of the sets are asked")
    yield Change("curate.require_citation", False, "random weights cite no rule")
    yield Change("generate.samples", min(recipe.generate.samples, 2), FEW)
    yield _shorter("generate.sampling", recipe.generate.sampling, _REPLY_TOKENS)
    yield Change("judge.samples", min(recipe.judge.samples, 2), FEW)
    yield _shorter("judge.sampling", recipe.judge.sampling, _REPLY_TOKENS)


def _shorter(key: str, sampling: Sampling, max_tokens: int) -> Change:
    """Returns the change to the same sampling with shorter outputs: whole, because a key alone
    would set the others back to the defaults of any sampling."""
    return Change(key, sampling.model_dump() | {"max_tokens": max_tokens}, FEW)


def _of_training(name: str, config: SftConfig | RlConfig) -> Iterator[Change]:
    workers = config.workers
    kept = {key: value for key, value in workers.arguments.items() if not is_gpu_alone(key)}
    yield Change(f"{name}.workers.use_gpu", False, PROCESSORS)
    yield Change(f"{name}.workers.num_workers", min(workers.num_workers, 2), PROCESSORS)
    yield Change(f"{name}.workers.num_cpus", 0.5, PROCESSORS)
    yield Change(f"{name}.workers.num_threads", 1, PROCESSORS)
    yield Change(f"{name}.workers.rows_at_once", min(workers.rows_at_once, 2), FEW)
    yield Change(f"{name}.workers.save_steps", 1, FEW)
    # As on a GPU, where these are the defaults.
    yield Change(f"{name}.workers.bf16", workers.bf16 is not False, "as on a GPU")
    arguments = {"gradient_checkpointing": True} | kept
    yield Change(f"{name}.workers.arguments", arguments, "as on a GPU, for what a CPU knows")


def _of_sft(config: SftConfig, folder: Path) -> Iterator[Change]:
    yield from _of_training("sft", config)
    yield Change("sft.epochs", min(config.epochs, 1.0), FEW)
    yield Change("sft.batch_size", 4, FEW)
    if config.capability:
        path = str(folder / "capability.jsonl")
        yield Change("sft.capability.path", path, "a few chats of this folder")


def _of_rl(config: RlConfig) -> Iterator[Change]:
    yield from _of_training("rl", config)
    yield Change("rl.steps", 2, FEW)
    yield Change("rl.samples", min(config.samples, 4), FEW)
    yield Change("rl.batch_size", 2 * min(config.samples, 4), FEW)
    yield Change("rl.max_tokens", _REPLY_TOKENS // 4, FEW)
    yield Change("rl.workers.judges", min(config.workers.judges, 2), PROCESSORS)
    yield Change("rl.workers.use_vllm", False, GPU_ALONE["use_vllm"])
    if config.reward.model:
        yield Change("rl.reward.model", False, LEFT_OUT["reward_model"])


def _of_evaluation(config: EvaluateConfig, folder: Path) -> Iterator[Change]:
    yield Change("evaluate.suites", [str(folder / "suite.toml")], "a few prompts of this folder")
    yield Change("evaluate.samples", min(config.samples, 2), FEW)
    yield _shorter("evaluate.sampling", config.sampling, _REPLY_TOKENS)
    for number, grader in enumerate(config.graders):
        place = f"evaluate.graders.{number}"
        yield Change(f"{place}.suites", [], "the one suite")
        yield Change(f"{place}.samples", min(grader.samples, 2), FEW)
        if grader.rubric:
            yield _shorter(f"{place}.sampling", grader.sampling, _GRADE_TOKENS)
