"""Faults of an engine's model that can be known before a model, Ray or Prefect starts.

Each is a ValueError of one sentence. What only the loaded model shows is told by the engine.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass

from tasks.engine.cluster import autoscales
from tasks.engine.endpoint_config import check_endpoint
from tasks.engine.families import find_marks
from tasks.engine.model_files import ModelFacts
from tasks.engine.processor import is_quick_at_bfloat16
from tasks.engine.requests import EngineConfig
from tasks.engine.turns import TurnRules, TurnsError

_GIB = 2**30
_SLOW = 'this CPU imitates bfloat16, and dtype = "float32" is several times as fast'
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Devices that a machine with a GPU has, whether or not a tool here tells its size."""


@dataclass(frozen=True, slots=True)
class CheckedModel:
    """A model that an engine can serve, as far as its files tell."""

    facts: ModelFacts | None
    """Facts from its files; None for a model behind an endpoint."""
    turns: TurnRules
    """The turns that its chat template can write."""

    def in_words(self, config: EngineConfig) -> str:
        """Returns what the model is, and what is done to the turns it is given."""
        facts = self.facts
        if config.endpoint is not None or facts is None:
            return f"{config.model} behind {config.endpoint}"
        context = config.max_model_len or facts.context
        parts = [
            facts.architecture,
            f"context of {context} tokens" if context else "context unknown",
            f"weights of {facts.num_bytes / 2**20:.0f} MiB" if facts.num_bytes else "to be fetched",
            str(self.turns),
            _SLOW if _is_slow(config, facts) else "",
        ]
        return ", ".join(part for part in parts if part)


def _is_slow(config: EngineConfig, facts: ModelFacts) -> bool:
    """Returns whether this machine's CPU would serve a model in a type that it only imitates."""
    is_here = not config.use_gpu and not os.environ.get("RAY_ADDRESS")
    return is_here and facts.is_large and config.dtype == "bfloat16" and not is_quick_at_bfloat16()


def check_model(config: EngineConfig) -> CheckedModel:
    """Returns an engine's model; raises ValueError if it cannot be served so.

    Sizes are checked where the engine runs on this machine, and not on a cluster. An endpoint is
    asked for its models.
    """
    if config.endpoint is not None:
        check_endpoint(config.endpoint, config.model)
        return CheckedModel(None, TurnRules(arguments="text"))
    facts = ModelFacts.of(config)
    _check_context(config, facts)
    _check_marks(config, facts)
    if not os.environ.get("RAY_ADDRESS"):
        _check_memory(config, facts)
    return CheckedModel(facts, _turn_rules(config, facts))


def _turn_rules(config: EngineConfig, facts: ModelFacts) -> TurnRules:
    """Returns the turns that a model's chat template can write; raises ValueError if it has none
    or cannot write a chat."""
    if "tokenizer" in config.engine_args:
        return TurnRules()
    render = facts.render_by(config.chat_template_kwargs)
    if render is None:
        return TurnRules()
    try:
        return TurnRules.of(render)
    except TurnsError as error:
        raise ValueError(f"{config.model}: {error}") from error


def _check_context(config: EngineConfig, facts: ModelFacts) -> None:
    wanted, own = config.max_model_len, facts.context
    may_be_longer = os.environ.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN") == "1"
    if wanted and own and wanted > own and not may_be_longer:
        raise ValueError(
            f"max_model_len is {wanted}, and {config.model} has a context of {own} tokens; "
            f"set it to {own} or less, or leave it unset"
        )


def _check_marks(config: EngineConfig, facts: ModelFacts) -> None:
    name = config.reasoning_parser
    if name is None or "tokenizer" in config.engine_args:
        return
    vocabulary = facts.read_vocabulary()
    if vocabulary is None:
        return
    kwargs = config.chat_template_kwargs
    find_marks(name, chat_template_kwargs=kwargs, vocabulary=vocabulary)


def _check_memory(config: EngineConfig, facts: ModelFacts) -> None:
    weights = facts.weights_bytes(config.dtype) // config.tensor_parallel_size
    context = config.max_model_len or facts.context
    cache = facts.cache_bytes(context, dtype=config.dtype) if context else None
    if "kv_cache_dtype" in config.engine_args:
        cache = None
    if config.use_gpu:
        _check_gpu(config, weights, (cache or 0) // config.tensor_parallel_size)
    else:
        _check_cpu(config, weights, cache, context)


def _check_cpu(config: EngineConfig, weights: int, cache: int | None, context: int | None) -> None:
    import psutil

    room = config.cpu_cache_gib * _GIB
    if cache is not None and context and cache > room:
        raise ValueError(
            f"a context of {context} tokens of {config.model} takes {cache / _GIB:.1f} GiB of "
            f"cache, and cpu_cache_gib is {config.cpu_cache_gib}; set it to "
            f"{-(-cache // _GIB)}, or max_model_len to {context * room // cache} or less"
        )
    needed = config.replicas * (weights + room)
    free = psutil.virtual_memory().available
    if needed > free:
        raise ValueError(
            f"{config.replicas} x {config.model} takes {needed / _GIB:.1f} GiB of memory "
            f"({weights / _GIB:.1f} for weights and {config.cpu_cache_gib} for cache each), and "
            f"{free / _GIB:.1f} GiB are free; lower cpu_cache_gib or replicas, or "
            "use a smaller model"
        )


def _check_gpu(config: EngineConfig, weights: int, cache: int) -> None:
    sizes = gpu_sizes()
    if not sizes:
        if not any(map(os.path.exists, _GPU_DEVICES)) and not autoscales():
            raise ValueError(
                f"use_gpu is true for {config.model} and this machine has no GPU; set "
                "use_gpu = false, or RAY_ADDRESS to join a cluster that has one"
            )
        return
    if config.tensor_parallel_size > len(sizes):
        raise ValueError(
            f"tensor_parallel_size is {config.tensor_parallel_size} and this machine has "
            f"{len(sizes)} GPUs; set it to {len(sizes)} or less"
        )
    room = int(min(sizes) * config.memory_share)
    share = f"of its gpu_share of {config.gpu_share:g} " if config.gpu_share < 1 else ""
    if weights + cache > room:
        raise ValueError(
            f"{config.model} takes {weights / _GIB:.1f} GiB for weights and {cache / _GIB:.1f} for "
            f"the cache of one context on each GPU, and gpu_memory_utilization {share}leaves it "
            f"{room / _GIB:.1f} of {min(sizes) / _GIB:.1f} GiB; lower max_model_len, raise "
            "tensor_parallel_size, or use a smaller model"
        )


def gpu_sizes() -> list[int]:
    """Returns the memory of each GPU of this machine in bytes; none if nothing here tells."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    # A tool of the driver: PyTorch would take seconds to tell.
    query = [tool, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout
        return [int(line) * 2**20 for line in told.split()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
