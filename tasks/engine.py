"""vLLM behind Ray: messages in, samples out.

One engine actor owns one vLLM `AsyncLLM` for its life. Engines outlast a stage, so that one warm
engine serves generating and judging where the model is the same. An engine that dies, or makes no
progress for a set time, ends its process: Ray starts it anew and asks it again.
"""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field

from specs.prompts import Message, neutralise
from specs.replies import CLOSE_TAG, OPEN_TAG, Reply, ReplyStatus, split_text, split_tokens
from tasks import Config

PROJECT = Path(__file__).parents[1]


class EngineConfig(Config):
    """A model and how vLLM serves it."""

    model: str = "Qwen/Qwen3-8B"
    """Hugging Face id, or a local folder (relative to the working folder or to Precept's own)."""
    revision: str | None = None
    """Commit of the model on Hugging Face; pin it, so that rows say what they were made with."""
    dtype: str = "bfloat16"
    """Type of the weights in memory."""
    max_model_len: int = Field(32768, gt=0)
    """Longest prompt and output together, in tokens."""
    max_num_seqs: int = Field(256, gt=0)
    """Sequences that one engine works on at once."""
    max_num_batched_tokens: int = Field(8192, gt=0)
    """Tokens in one step of the engine."""
    replicas: int = Field(1, gt=0)
    """Engines to run side by side."""
    tensor_parallel_size: int = Field(1, gt=0)
    """GPUs that one engine is spread over."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of a GPU's memory for weights and cache."""
    cpu_cache_gib: int = Field(1, gt=0)
    """Memory for the cache where there is no GPU, in GiB."""
    block_size: int = Field(32, gt=0)
    """Tokens in one block of the cache; a shared prefix is served in whole blocks."""
    enforce_eager: bool = False
    """Do without compiled graphs: starts sooner, runs slower on a GPU."""
    reasoning_parser: str | None = None
    """vLLM's parser for models whose reasoning does not stand between <think> tags."""
    chat_template_kwargs: dict[str, bool | str] = {}
    """Options of the model's own chat template, as enable_thinking."""
    use_gpu: bool = True
    """Whether an engine needs GPUs; false for vLLM's CPU build."""
    num_cpus: float = Field(1.0, ge=0)
    """Processors that Ray sets aside for one engine."""
    stall_seconds: float = Field(600.0, gt=0)
    """An engine that makes no token for this long is restarted."""
    engine_args: dict[str, bool | int | float | str] = {}
    """Further arguments of vLLM, by the names of its AsyncEngineArgs."""

    @property
    def model_path(self) -> str:
        """The folder of a local model, else the id."""
        for base in (Path.cwd(), PROJECT):
            if (base / self.model / "config.json").is_file():
                return str(base / self.model)
        return self.model

    @property
    def version(self) -> str:
        """`model@revision`; a local folder's revision is the hash of what is in it."""
        folder = Path(self.model_path)
        if not folder.is_dir():
            return f"{self.model}@{self.revision or 'main'}"
        digest = hashlib.sha256()
        for file in sorted(folder.iterdir()):
            if file.suffix in (".safetensors", ".jinja") or file.name.startswith("tokenizer"):
                digest.update(file.name.encode())
                digest.update(file.read_bytes())
        return f"{self.model}@{digest.hexdigest()[:12]}"


class Sampling(Config):
    """How a model is sampled."""

    temperature: float = Field(0.6, ge=0, le=2)
    """0 is greedy; several samples of one prompt need more."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Share of probability that is sampled from."""
    max_tokens: int = Field(8192, gt=0)
    """Longest output in tokens; what is longer is cut and counts as truncated."""


@dataclass(frozen=True, slots=True)
class Request:
    """Messages to answer, several times over."""

    messages: list[Message]
    num_samples: int
    sampling: Sampling
    pattern: str | None = None
    """A regular expression that the visible part of the answer must match, if any."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One output of an engine, or why there is none."""

    reply: Reply
    finish_reason: str | None = None
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_output_tokens: int = 0
    fault: str | None = None
    """`too_long` or `error`; None where the engine answered."""
    reason: str | None = None

    @property
    def status(self) -> str:
        """The fault of the engine if any, else how the reply came out."""
        if self.fault:
            return self.fault
        return "truncated" if self.finish_reason == "length" else self.reply.status.value


def failed(fault: str, reason: str, *, num_prompt_tokens: int = 0) -> Sample:
    """The sample that stands for none."""
    empty = Reply(ReplyStatus.UNCLOSED, "", "")
    return Sample(empty, num_prompt_tokens=num_prompt_tokens, fault=fault, reason=reason)


@dataclass(slots=True)
class Figures:
    """What an engine has done since it started."""

    prompt_tokens: int = 0
    """Tokens of prompts, each sample's prompt counted."""
    cached_tokens: int = 0
    """Of these, tokens that the prefix cache served."""
    output_tokens: int = 0
    steps: int = 0
    running: int = 0
    """Sequences at work now."""
    seconds_to_start: float = 0.0

    def since(self, before: "Figures") -> "Figures":
        """What was done after `before` was taken."""
        return Figures(
            self.prompt_tokens - before.prompt_tokens,
            self.cached_tokens - before.cached_tokens,
            self.output_tokens - before.output_tokens,
            self.steps - before.steps,
            self.running,
            self.seconds_to_start,
        )


class Engine(Protocol):
    """Whatever answers requests: samples for each, in order."""

    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]: ...


class ScriptedEngine:
    """An engine whose replies a function writes; for trying a stage without a model."""

    def __init__(self, script: Callable[[Request, int], str]) -> None:
        self.script = script
        self.requests: list[Request] = []

    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        self.requests += requests
        return [
            [self._sample(self.script(request, i)) for i in range(request.num_samples)]
            for request in requests
        ]

    async def figures(self) -> Figures:
        return Figures(output_tokens=len(self.requests))

    def _sample(self, text: str) -> Sample:
        words = len(text.split())
        return Sample(split_text(text), finish_reason="stop", num_output_tokens=words)


class VLLMEngine:
    """One vLLM engine. Made inside an actor; answers on the actor's one event loop."""

    def __init__(self, config: EngineConfig, live_folder: str | None = None) -> None:
        self.config = config
        self._live_path = Path(live_folder) / f"{os.getpid()}.json" if live_folder else None
        self._figures = Figures()
        self._last_progress = time.monotonic()
        self._last_written = 0.0
        self._in_flight = 0
        self._next_id = 0
        self._starting: asyncio.Task[None] | None = None
        self._llm: Any = None
        self._tokenizer: Any = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Loads the model; further calls wait for the first."""
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._start())
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        began = time.monotonic()
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        config = self.config
        if not config.use_gpu:
            os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(config.cpu_cache_gib)
        options: dict[str, Any] = {
            "model": config.model_path,
            "revision": config.revision,
            "dtype": config.dtype,
            "max_model_len": config.max_model_len,
            "max_num_seqs": config.max_num_seqs,
            "max_num_batched_tokens": config.max_num_batched_tokens,
            "tensor_parallel_size": config.tensor_parallel_size,
            "gpu_memory_utilization": config.gpu_memory_utilization,
            "block_size": config.block_size,
            "enforce_eager": config.enforce_eager or not config.use_gpu,
            "enable_prefix_caching": True,
            **config.engine_args,
        }
        if config.reasoning_parser:
            options["reasoning_parser"] = config.reasoning_parser
        args = AsyncEngineArgs(**options)
        self._llm = AsyncLLM.from_engine_args(args, stat_loggers=[self._stat_logger()])
        self._tokenizer = self._llm.get_tokenizer()
        encode = self._tokenizer.encode
        self._open_ids = encode(OPEN_TAG, add_special_tokens=False)
        self._close_ids = encode(CLOSE_TAG, add_special_tokens=False)
        self._special_tokens = list(self._tokenizer.all_special_tokens)
        self._figures.seconds_to_start = time.monotonic() - began
        self._last_progress = time.monotonic()
        self._tasks.append(asyncio.get_running_loop().create_task(self._watch()))

    def _stat_logger(self) -> Any:
        """Counts what vLLM reports after each step."""
        from vllm.v1.metrics.loggers import StatLoggerBase

        engine = self

        class Counter(StatLoggerBase):
            def __init__(self, *args: Any, **options: Any) -> None: ...

            def record(
                self, scheduler_stats: Any, iteration_stats: Any, *args: Any, **options: Any
            ) -> None:
                engine._count(scheduler_stats, iteration_stats)

            def log_engine_initialized(self) -> None: ...

        return Counter

    def _count(self, scheduler_stats: Any, iteration_stats: Any) -> None:
        figures = self._figures
        if scheduler_stats is not None:
            figures.running = scheduler_stats.num_running_reqs
            figures.prompt_tokens += scheduler_stats.prefix_cache_stats.queries
            figures.cached_tokens += scheduler_stats.prefix_cache_stats.hits
        if iteration_stats is not None:
            figures.steps += 1
            figures.output_tokens += iteration_stats.num_generation_tokens
            if iteration_stats.num_generation_tokens:
                self._last_progress = time.monotonic()
        if self._live_path and time.monotonic() - self._last_written > 0.5:
            self._last_written = time.monotonic()
            self._live_path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._live_path.with_suffix(".tmp")
            temporary.write_text(json.dumps({"time": time.time(), **asdict(figures)}))
            temporary.replace(self._live_path)

    async def _watch(self) -> None:
        """Ends the process of an engine that stands still, so that Ray starts a new one."""
        while True:
            await asyncio.sleep(min(5.0, self.config.stall_seconds / 4))
            if not self._in_flight:
                self._last_progress = time.monotonic()
            still = time.monotonic() - self._last_progress
            if still > self.config.stall_seconds:
                _end_process(f"engine made no token for {still:.0f} s; it is started anew")

    async def figures(self) -> Figures:
        return self._figures

    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """Samples for each request, in order; a request that cannot be served says why."""
        await self.start()
        return list(await asyncio.gather(*(self._answer(request) for request in requests)))

    async def _answer(self, request: Request) -> list[Sample]:
        from vllm.v1.engine.exceptions import EngineDeadError

        num_samples = request.num_samples
        try:
            text = self.render(request.messages)
            ids = await self._encode(text)
        except Exception as error:  # a chat template may raise anything on odd roles
            return [failed("error", f"chat template: {error}")] * num_samples
        room = self.config.max_model_len - len(ids)
        if room < 1:
            reason = f"prompt of {len(ids)} tokens, context of {self.config.max_model_len}"
            return [failed("too_long", reason, num_prompt_tokens=len(ids))] * num_samples
        self._in_flight += 1
        try:
            return await self._sample(request, ids, text, room)
        except EngineDeadError:
            _end_process("engine died; it is started anew")
            raise
        except ValueError as error:
            return [failed("error", str(error), num_prompt_tokens=len(ids))] * num_samples
        finally:
            self._in_flight -= 1

    def render(self, messages: Sequence[Message]) -> str:
        """The chat template's text; special tokens in what the messages say are broken first."""
        safe = [
            {**m, "content": neutralise(m["content"], special_tokens=self._special_tokens)}
            for m in messages
        ]
        return str(
            self._tokenizer.apply_chat_template(
                safe,
                tokenize=False,
                add_generation_prompt=True,
                **self.config.chat_template_kwargs,
            )
        )

    async def _encode(self, text: str) -> list[int]:
        def encode() -> list[int]:
            return list(self._tokenizer.encode(text, add_special_tokens=False))

        # Long text would hold up the event loop, and with it every other request.
        return await asyncio.to_thread(encode) if len(text) > 50_000 else encode()

    async def _sample(self, request: Request, ids: list[int], text: str, room: int) -> list[Sample]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        pattern = request.pattern
        parameters = SamplingParams(
            n=request.num_samples,
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            max_tokens=min(request.sampling.max_tokens, room),
            output_kind=RequestOutputKind.FINAL_ONLY,
            detokenize=False,
            structured_outputs=StructuredOutputsParams(regex=pattern) if pattern else None,
        )
        self._next_id += 1
        final = None
        stream = self._llm.generate({"prompt_token_ids": ids}, parameters, str(self._next_id))
        async for output in stream:
            final = output
        assert final is not None and len(final.outputs) == request.num_samples
        prefilled = text.rstrip().endswith(OPEN_TAG)
        return [
            Sample(
                reply=self._split(list(output.token_ids), prefilled),
                finish_reason=output.finish_reason,
                num_prompt_tokens=len(ids),
                num_cached_tokens=final.num_cached_tokens or 0,
                num_output_tokens=len(output.token_ids),
            )
            for output in final.outputs
        ]

    def _split(self, token_ids: list[int], prefilled: bool) -> Reply:
        if token_ids and token_ids[-1] in self._end_ids():
            token_ids = token_ids[:-1]
        if self.config.reasoning_parser:
            return self._split_by_parser(token_ids)
        return split_tokens(
            token_ids,
            open_ids=self._open_ids,
            close_ids=self._close_ids,
            decode=self._decode,
            prefilled=prefilled,
        )

    def _split_by_parser(self, token_ids: list[int]) -> Reply:
        """For families whose reasoning is not between <think> tags, as gpt-oss."""
        from vllm.reasoning import ReasoningParserManager

        assert self.config.reasoning_parser
        parser = ReasoningParserManager.get_reasoning_parser(self.config.reasoning_parser)(
            self._tokenizer
        )
        answer_ids = parser.extract_content_ids(token_ids)
        reasoning_ids = token_ids[: len(token_ids) - len(answer_ids)]
        decode = self._tokenizer.decode
        reasoning = decode(reasoning_ids, skip_special_tokens=True).strip()
        answer = decode(answer_ids, skip_special_tokens=True).strip()
        counts = (len(reasoning_ids), len(answer_ids))
        if not parser.is_reasoning_end(token_ids):
            return Reply(ReplyStatus.UNCLOSED, reasoning, "", *counts)
        if not answer:
            return Reply(ReplyStatus.EMPTY_ANSWER, reasoning, "", *counts)
        status = ReplyStatus.OK if reasoning else ReplyStatus.EMPTY_REASONING
        return Reply(status, reasoning, answer, *counts)

    def _end_ids(self) -> set[int]:
        return {self._tokenizer.eos_token_id, self._tokenizer.pad_token_id}

    def _decode(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=False))


def _end_process(why: str) -> None:
    """Ends this process and vLLM's own below it; whoever supervises it starts a new one."""
    import logging

    import psutil

    logging.getLogger("precept.engine").error(why)
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(1)


@dataclass(slots=True)
class Engines:
    """The engines of a run: started when first asked for, kept warm until they are closed."""

    live_folder: str | None = None
    _config: EngineConfig | None = None
    _handles: list[Any] = field(default_factory=list)
    num_started: int = 0
    """Models loaded in this run."""

    def serving(self, config: EngineConfig) -> list[Any]:
        """Handles of engines with this configuration; others are stopped first."""
        import ray

        if config != self._config:
            self.close()
            options: dict[str, Any] = {
                "num_cpus": config.num_cpus,
                "num_gpus": config.tensor_parallel_size if config.use_gpu else 0,
                "max_restarts": -1,
                "max_task_retries": 2,
                "max_concurrency": 1000,
            }
            actor = ray.remote(VLLMEngine).options(**options)
            self._handles = [actor.remote(config, self.live_folder) for _ in range(config.replicas)]
            ray.get([handle.start.remote() for handle in self._handles])
            self._config = config
            self.num_started += config.replicas
        return self._handles

    def use(self, config: EngineConfig, handles: Sequence[Any]) -> None:
        """Serves a configuration by actors that were made elsewhere."""
        self.close()
        self._config, self._handles = config, list(handles)

    def figures(self) -> Figures:
        """The figures of all engines together."""
        import ray

        total = Figures()
        for one in ray.get([handle.figures.remote() for handle in self._handles]):
            total.prompt_tokens += one.prompt_tokens
            total.cached_tokens += one.cached_tokens
            total.output_tokens += one.output_tokens
            total.steps += one.steps
            total.running += one.running
            total.seconds_to_start = max(total.seconds_to_start, one.seconds_to_start)
        return total

    def close(self) -> None:
        """Stops the engines and frees what they held."""
        if self._handles:
            import ray

            for handle in self._handles:
                ray.kill(handle)
        self._handles = []
        self._config = None
