"""One vLLM engine: an `AsyncLLM` with the tokenizer, the split of replies and a watch over it.

Made inside an actor, and answers on that actor's one event loop. Nothing of vLLM is known outside
this module.
"""

import asyncio
import json
import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from specs.prompts import Message, neutralise
from specs.replies import CLOSE_TAG, OPEN_TAG, Reply, ReplyStatus, find_closing, split_tokens
from tasks.engine.chat_template import ChatTemplate, Frame
from tasks.engine.requests import EngineConfig, Request, Sample, Usage, failed


class VLLMEngine:
    """One vLLM engine. Made inside an actor; answers on the actor's one event loop."""

    def __init__(self, config: EngineConfig, live_folder: str | None = None) -> None:
        self.config = config
        self.live_path = Path(live_folder) / f"{os.getpid()}.json" if live_folder else None
        self._usage = Usage()
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
        try:
            await asyncio.shield(self._starting)
        except Exception:
            self._starting = None
            raise

    async def _start(self) -> None:
        began = time.monotonic()
        # An actor on another machine has its own environment: nothing phones home from there.
        for name in ("VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY"):
            os.environ.setdefault(name, "1")
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM
        from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger

        config = self.config
        if not config.use_gpu:
            os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(config.cpu_cache_gib)
            # A model on one worker runs in the engine's own process: that starts sooner, its steps
            # are shorter, and it takes the threads that Ray has set aside (OMP_NUM_THREADS).
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
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
        # Ray tells Prometheus what vLLM counts, where the engine is an actor of Ray.
        loggers = [self._stat_logger(), *([RayPrometheusStatLogger] if _is_actor() else [])]
        self._llm = AsyncLLM.from_engine_args(args, stat_loggers=loggers)
        self._tokenizer = self._llm.get_tokenizer()
        encode = self._tokenizer.encode
        self._open_ids = encode(OPEN_TAG, add_special_tokens=False)
        self._close_ids = encode(CLOSE_TAG, add_special_tokens=False)
        # All that the tokenizer adds: the turn marks of some models are not "special" to it.
        added = self._tokenizer.added_tokens_decoder.values()
        self._special_tokens = [token.content for token in added]
        self._end_ids = self._find_end_ids()
        self._usage = replace(self._usage, seconds_to_start=time.monotonic() - began)
        self._last_progress = time.monotonic()
        self._tasks.append(asyncio.get_running_loop().create_task(self._watch()))

    def _stat_logger(self) -> Any:
        """Counts what vLLM reports after each step."""
        from vllm.v1.metrics.loggers import StatLoggerBase

        engine = self

        class Counter(StatLoggerBase):  # type: ignore[misc]  # vllm is not followed
            def __init__(self, *args: Any, **options: Any) -> None: ...

            def record(
                self, scheduler_stats: Any, iteration_stats: Any, *args: Any, **options: Any
            ) -> None:
                engine._count(scheduler_stats, iteration_stats)

            def log_engine_initialized(self) -> None: ...

        return Counter

    def _count(self, scheduler_stats: Any, iteration_stats: Any) -> None:
        if scheduler_stats is not None:
            prefix_cache = scheduler_stats.prefix_cache_stats
            self._usage = replace(
                self._usage,
                running=scheduler_stats.num_running_reqs,
                prompt_tokens=self._usage.prompt_tokens + prefix_cache.queries,
                cached_tokens=self._usage.cached_tokens + prefix_cache.hits,
            )
        if iteration_stats is not None:
            self._usage = replace(
                self._usage,
                steps=self._usage.steps + 1,
                output_tokens=self._usage.output_tokens + iteration_stats.num_generation_tokens,
            )
            if iteration_stats.num_generation_tokens:
                self._last_progress = time.monotonic()
        if self.live_path and time.monotonic() - self._last_written > 0.5:
            self._last_written = time.monotonic()
            # What is only for looking at must not end what is at work.
            with suppress(OSError):
                self.live_path.parent.mkdir(parents=True, exist_ok=True)
                temporary = self.live_path.with_suffix(".tmp")
                temporary.write_text(json.dumps({"time": time.time(), **asdict(self._usage)}))
                temporary.replace(self.live_path)

    async def _watch(self) -> None:
        """Ends the process of an engine that stands still, so that Ray starts a new one."""
        while True:
            await asyncio.sleep(min(5.0, self.config.stall_seconds / 4))
            if not self._in_flight:
                self._last_progress = time.monotonic()
            still = time.monotonic() - self._last_progress
            if still > self.config.stall_seconds:
                _end_process(f"engine made no token for {still:.0f} s; it is started anew")

    async def stop(self) -> None:
        """Ends vLLM and the watch over it."""
        for watch in self._tasks:
            watch.cancel()
        if self._llm is not None:
            # Where there is no GPU nothing has to be handed back in order.
            self._llm.shutdown(timeout=None if self.config.use_gpu else 0)

    async def usage(self) -> Usage:
        return self._usage

    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """Samples for each request, in order; a request that cannot be served says why."""
        await self.start()
        return list(await asyncio.gather(*(self._answer(request) for request in requests)))

    async def _answer(self, request: Request) -> list[Sample]:
        from vllm.exceptions import VLLMError
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        num_samples = request.num_samples
        try:
            text = self.render(request.messages, raw=request.raw)
            if request.reasoning is not None:
                thought = neutralise(request.reasoning, special_tokens=self._special_tokens)
                text += f"{self._frame.opening}{thought}{self._frame.between}"
            ids = await self._encode(text)
        except Exception as error:  # a chat template may raise anything on odd roles
            return [failed("error", f"chat template: {error}")] * num_samples
        room = self.config.max_model_len - len(ids)
        if room < 1:
            reason = f"prompt of {len(ids)} tokens, context of {self.config.max_model_len}"
            return [failed("too_long", reason, num_prompt_tokens=len(ids))] * num_samples
        self._in_flight += 1
        try:
            if request.budget is not None and request.reasoning is None:
                return await self._within_budget(request, ids, room)
            return await self._sample(request, ids, text, room)
        except EngineDeadError:
            _end_process("engine died; it is started anew")
            raise
        except (ValueError, VLLMError, EngineGenerateError) as error:
            reason = f"{type(error).__name__}: {error.__cause__ or error}"
            return [failed("error", reason, num_prompt_tokens=len(ids))] * num_samples
        finally:
            self._in_flight -= 1

    def render(self, messages: Sequence[Message], *, raw: bool = False) -> str:
        """The chat template's text; special tokens in what the messages say are broken first,
        unless the text is to stay `raw`."""
        safe = [
            {**m, "content": neutralise(m["content"], special_tokens=self._special_tokens)}
            for m in messages
        ]
        if raw:
            safe = [{**m} for m in messages]
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
        final = await self._generate(request, ids, min(request.sampling.max_tokens, room))
        return [
            self._made(
                self._split(list(output.token_ids), text.rstrip(), request.reasoning),
                output,
                len(ids),
                final.num_cached_tokens,
            )
            for output in final.outputs
        ]

    async def _within_budget(self, request: Request, ids: list[int], room: int) -> list[Sample]:
        """Samples whose reasoning is closed after `budget` tokens and followed by an answer."""
        assert request.budget is not None
        most = min(request.sampling.max_tokens, room)
        if self.config.reasoning_parser:
            # vLLM knows where such a model's reasoning ends, and closes it.
            final = await self._generate(request, ids, most, thinking_token_budget=request.budget)
            made = [
                self._made(self._split(list(output.token_ids), ""), output, len(ids))
                for output in final.outputs
            ]
            return [
                replace(one, closed_by_force=one.reply.num_reasoning_tokens >= request.budget)
                for one in made
            ]
        opening = await self._encode(self._frame.opening)
        if most <= len(opening) + request.budget:
            # The output ends before the budget does.
            return await self._sample(request, ids, self._frame.prompt_ending, room)
        begun: list[Any] = [None] * request.num_samples
        if request.budget:
            first = await self._generate(request, ids, len(opening) + request.budget)
            begun = list(first.outputs)
        rest = (self._finish(request, ids, opening, output, most) for output in begun)
        return list(await asyncio.gather(*rest))

    async def _finish(
        self, request: Request, ids: list[int], opening: list[int], begun: Any, most: int
    ) -> Sample:
        """A sample from its beginning on: reasoning that is still open is closed."""
        ending = self._frame.prompt_ending.rstrip()
        if begun is not None and begun.finish_reason != "length":
            return self._made(self._split(list(begun.token_ids), ending), begun, len(ids))
        start = opening if begun is None else list(begun.token_ids)
        end, _ = find_closing(start, min(len(opening), len(start)), self._close_ids, self._decode)
        by_force = end == len(start)
        if by_force:
            start = start + await self._encode(self._frame.between)
        if len(start) >= most:
            reply = Reply(ReplyStatus.UNCLOSED, self._decode(start), "")
            return Sample(reply, "length", len(ids), num_output_tokens=len(start))
        final = await self._generate(
            replace(request, num_samples=1), ids + start, most - len(start)
        )
        [output] = final.outputs
        reply = self._split(start + list(output.token_ids), ending)
        made = self._made(reply, output, len(ids), final.num_cached_tokens)
        num_output_tokens = len(start) + made.num_output_tokens
        return replace(made, num_output_tokens=num_output_tokens, closed_by_force=by_force)

    @cached_property
    def _frame(self) -> Frame:
        """The text that the chat template puts around the parts of a reply."""
        kwargs = self.config.chat_template_kwargs
        return ChatTemplate(self._tokenizer, chat_template_kwargs=kwargs).frame

    async def _generate(
        self, request: Request, ids: list[int], max_tokens: int, **options: Any
    ) -> Any:
        """The engine's final output for a request."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        pattern = request.pattern
        parameters = SamplingParams(
            n=request.num_samples,
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            max_tokens=max_tokens,
            output_kind=RequestOutputKind.FINAL_ONLY,
            detokenize=False,
            structured_outputs=StructuredOutputsParams(regex=pattern) if pattern else None,
            **options,
        )
        self._next_id += 1
        final = None
        stream = self._llm.generate({"prompt_token_ids": ids}, parameters, str(self._next_id))
        async for output in stream:
            final = output
        assert final is not None and len(final.outputs) == request.num_samples
        return final

    def _made(
        self, reply: Reply, output: Any, num_prompt_tokens: int, num_cached: int | None = None
    ) -> Sample:
        return Sample(
            reply=reply,
            finish_reason=output.finish_reason,
            num_prompt_tokens=num_prompt_tokens,
            num_cached_tokens=num_cached or 0,
            num_output_tokens=len(output.token_ids),
        )

    def _split(self, token_ids: list[int], ending: str, reasoning: str | None = None) -> Reply:
        """The reply to a prompt with this ending, in its two parts.

        `reasoning` is what the model was made to have thought, if it was.
        """
        if token_ids and token_ids[-1] in self._end_ids:
            token_ids = token_ids[:-1]
        if reasoning is not None:
            answer = self._decode(token_ids).strip()
            status = ReplyStatus.OK if answer else ReplyStatus.EMPTY_ANSWER
            if OPEN_TAG in answer or CLOSE_TAG in answer:
                # It went on thinking: nothing of that may pass for an answer.
                return Reply(ReplyStatus.MALFORMED, reasoning, "", 0, len(token_ids))
            return Reply(status, reasoning, answer, 0, len(token_ids))
        # A prompt that ends on a closed reasoning asks for an answer alone.
        if not self.config.reasons or ending.endswith(CLOSE_TAG):
            answer = self._decode(token_ids).strip()
            status = ReplyStatus.EMPTY_REASONING if answer else ReplyStatus.EMPTY_ANSWER
            return Reply(status, "", answer, 0, len(token_ids))
        if self.config.reasoning_parser:
            return self._split_by_parser(token_ids)
        return split_tokens(
            token_ids,
            open_ids=self._open_ids,
            close_ids=self._close_ids,
            decode=self._decode,
            prefilled=ending.endswith(OPEN_TAG),
        )

    def _split_by_parser(self, token_ids: list[int]) -> Reply:
        """For families whose reasoning is not between <think> tags, as Mistral's."""
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

    def _find_end_ids(self) -> set[int]:
        """Tokens that end a reply: the tokenizer's and those of the model's generation config."""
        config = self._llm.vllm_config.model_config.try_get_generation_config()
        more = config.get("eos_token_id", [])
        ends = {self._tokenizer.eos_token_id, self._tokenizer.pad_token_id}
        return ends | set(more if isinstance(more, list) else [more])

    def _decode(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=False))


def _is_actor() -> bool:
    import ray

    return ray.is_initialized() and bool(ray.get_runtime_context().get_actor_id())


def _end_process(why: str) -> None:
    """Ends this process and vLLM's own below it; its supervisor, Ray, starts a new one."""
    logging.getLogger("precept.engine").error(why)
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(1)
