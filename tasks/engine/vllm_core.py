"""vLLM with a model loaded, in this process or in one of its own: an output for a request."""

import asyncio
import os
import shutil
from functools import partial
from typing import Any, Protocol

from tasks.engine.families import IN_VOCABULARY, marks_of
from tasks.engine.model_files import find_folder, read_vocabulary
from tasks.engine.requests import EngineConfig
from tasks.engine.stepped import EngineStopped, SteppedEngine
from tasks.engine.usage_counter import UsageCounter

_SMALL_VOCABULARY = 10_000
"""Tokens of a vocabulary up to which drawing is quick without a compiler."""
_IS_APART = os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING", "0") != "0"
"""True if whoever started this process wants models in processes of their own."""


class Core(Protocol):
    """A loaded model. All calls come from one event loop."""

    @property
    def llm(self) -> Any:
        """vLLM's engine, with the model's configuration and its tokenizer."""

    async def generate(self, request_id: str, prompt: Any, parameters: Any) -> Any:
        """Returns the final output of a request, with all its samples.

        Raises what vLLM raises for a request that it refuses, and EngineStopped.
        """

    def stop(self) -> None:
        """Ends vLLM."""


class _OtherProcess:
    """An `AsyncLLM`, whose model runs in processes of its own."""

    def __init__(self, config: EngineConfig, counter: UsageCounter) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = AsyncEngineArgs(**_options(config))
        self.llm = AsyncLLM.from_engine_args(arguments, stat_loggers=_loggers(counter))
        self._config = config

    async def generate(self, request_id: str, prompt: Any, parameters: Any) -> Any:
        from vllm.v1.engine.exceptions import EngineDeadError

        # Some of vLLM's parsers are told by the options whether the model reasons at all.
        options = {"chat_template_kwargs": self._config.chat_template_kwargs}
        stream = self.llm.generate(prompt, parameters, request_id, reasoning_parser_kwargs=options)
        final = None
        try:
            async for output in stream:
                final = output
        except EngineDeadError as error:
            raise EngineStopped(str(error)) from error
        return final

    def stop(self) -> None:
        # Without a GPU there is no memory that must be handed back in order.
        self.llm.shutdown(timeout=None if self._config.use_gpu else 0)


async def load_core(config: EngineConfig, counter: UsageCounter) -> Core:
    """Loads the model of an engine, which reports to the counter; raises whatever vLLM raises."""
    # An actor on another machine has its own environment: nothing phones home from there.
    for name in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ.setdefault(name, "1")
    if not config.use_gpu:
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(config.cpu_cache_gib)
        if not await asyncio.to_thread(_is_sampler_compiled, config):
            os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
        # One worker shares its engine's process: that starts sooner, its steps are shorter, and it
        # takes the threads that Ray has set aside (OMP_NUM_THREADS).
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if not _is_stepped_here(config):
        return _OtherProcess(config, counter)
    stepped = SteppedEngine(partial(_load_here, config, counter))
    await stepped.made()
    return stepped


def _load_here(config: EngineConfig, counter: UsageCounter) -> Any:
    """Returns an `LLMEngine`, whose model runs in this process."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    return LLMEngine.from_engine_args(
        EngineArgs(**_options(config)), stat_loggers=_loggers(counter)
    )


def _is_sampler_compiled(config: EngineConfig) -> bool:
    """Returns whether vLLM may compile the function that draws tokens on a CPU.

    Compiling fails without a compiler, and takes 3 s at each start and 20 s at the first one on a
    machine. Draws from large vocabularies earn that back: a batch of 32 from 49,152 tokens takes
    42 ms in place of 90.
    """
    vocabulary = read_vocabulary(find_folder(config)) or ()
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    return len(vocabulary) > _SMALL_VOCABULARY and compiler is not None


def _is_stepped_here(config: EngineConfig) -> bool:
    """Returns whether the model runs in this process: one worker on a CPU, unless the environment
    says otherwise, or requests have options for a reasoning parser, which `AsyncLLM` alone takes.
    """
    is_on_one_cpu = not config.use_gpu and config.tensor_parallel_size == 1
    return is_on_one_cpu and config.reasoning_parser is None and not _IS_APART


def _options(config: EngineConfig) -> dict[str, Any]:
    """Returns vLLM's arguments for an engine."""
    options: dict[str, Any] = {
        "model": config.model_path,
        "revision": config.revision,
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "tensor_parallel_size": config.tensor_parallel_size,
        "gpu_memory_utilization": config.memory_share,
        "block_size": config.block_size,
        "enforce_eager": config.enforce_eager or not config.use_gpu,
        "enable_prefix_caching": True,
        **config.engine_args,
    }
    if config.reasoning_parser:
        options["reasoning_parser"] = config.reasoning_parser
        options["reasoning_config"] = _reasoning_config(config)
    return options


def _loggers(counter: UsageCounter) -> list[type[Any]]:
    """Returns what vLLM logs to: the counter and, in an actor, Ray's Prometheus exporter."""
    from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger

    return [_logger_class(counter), *([RayPrometheusStatLogger] if _is_actor() else [])]


def _reasoning_config(config: EngineConfig) -> Any:
    """Returns the marks by which vLLM limits reasoning, as the options of the template choose them.

    vLLM would ask the parser for them without those options.
    """
    from vllm.config.reasoning import ReasoningConfig

    if config.reasoning_parser in IN_VOCABULARY:
        return ReasoningConfig()
    kwargs = config.chat_template_kwargs
    marks = marks_of(config.reasoning_parser, chat_template_kwargs=kwargs)
    return ReasoningConfig(reasoning_start_str=marks.opening, reasoning_end_str=marks.closing)


def _logger_class(counter: UsageCounter) -> type[Any]:
    """Returns a class for vLLM to log to, whose instances pass each step on to the counter."""
    from vllm.v1.metrics.loggers import StatLoggerBase

    class CounterLogger(StatLoggerBase):  # type: ignore[misc]  # vllm is not followed
        def __init__(self, *args: Any, **options: Any) -> None: ...

        def record(
            self, scheduler_stats: Any, iteration_stats: Any, *args: Any, **options: Any
        ) -> None:
            counter.count(scheduler_stats, iteration_stats)

        def log_engine_initialized(self) -> None: ...

    return CounterLogger


def _is_actor() -> bool:
    import ray

    return ray.is_initialized() and bool(ray.get_runtime_context().get_actor_id())
