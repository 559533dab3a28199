"""One vLLM engine: how requests become its prompts, replies its outputs, and a watch over it."""

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from specs.prompts import Message
from specs.replies import Reply, ReplyForm, ReplyStatus
from tasks.engine.families import find_marks
from tasks.engine.faults import cause_of
from tasks.engine.rendering import Renderer
from tasks.engine.requests import EngineConfig, EngineError, Request, Sample, failed
from tasks.engine.splitter import ReplySplitter
from tasks.engine.stepped import EngineStopped
from tasks.engine.usage import Usage
from tasks.engine.usage_counter import UsageCounter
from tasks.engine.vllm_core import Core, load_core


class VLLMEngine:
    """One vLLM engine. Made inside an actor; answers on the actor's one event loop.

    An engine that is used from two event loops hangs, so an actor runs one loop for its life, and
    nothing that is slow may run on it: every request of the engine would wait.
    """

    def __init__(self, config: EngineConfig, live_folder: str | None = None) -> None:
        self.config = config
        self.live_path = Path(live_folder) / f"{os.getpid()}.json" if live_folder else None
        self._counter = UsageCounter(self.live_path)
        self._in_flight = 0
        self._next_id = 0
        self._starting: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._core: Core | None = None
        self._tokenizer: Any = None

    async def start(self) -> None:
        """Loads the model; further calls wait for the first. A call after a failure tries again."""
        if self._starting is None:
            self._starting = asyncio.get_running_loop().create_task(self._begin())
        try:
            # Shielded, because others wait for the same model when a caller is cancelled.
            await asyncio.shield(self._starting)
        except Exception:
            self._starting = None
            raise

    async def _begin(self) -> None:
        """Loads the model; raises EngineError with the innermost cause if it cannot."""
        try:
            await self._start()
        except Exception as error:  # vLLM raises anything, and not all of it can be pickled
            logging.getLogger("precept.engine").exception("model was not loaded")
            raise EngineError(cause_of(error)) from None

    async def _start(self) -> None:
        began = time.monotonic()
        self._core = await load_core(self.config, self._counter)
        llm = self._core.llm
        self._tokenizer = llm.get_tokenizer()
        self._max_model_len = int(llm.model_config.max_model_len)
        self._renderer = Renderer(self._tokenizer, self.config)
        self._splitter = ReplySplitter(
            self._tokenizer,
            end_ids=_end_ids(llm, self._tokenizer),
            reasons=bool(self.config.reasons),
            marks=find_marks(
                self.config.reasoning_parser,
                chat_template_kwargs=self.config.chat_template_kwargs,
                vocabulary=self._tokenizer.get_vocab(),
            ),
        )
        self._counter.note_start(time.monotonic() - began)
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        """Ends the process of an engine that stands still, so that Ray starts a new one."""
        while True:
            await asyncio.sleep(min(5.0, self.config.stall_seconds / 4))
            if not self._in_flight:
                self._counter.note_progress()
            stalled = self._counter.seconds_without_progress
            if stalled > self.config.stall_seconds:
                _end_process(f"engine made no token for {stalled:.0f} s and is restarted")

    async def stop(self) -> None:
        """Ends vLLM and the watch over it."""
        if self._watching is not None:
            self._watching.cancel()
        if self._core is not None:
            self._core.stop()

    async def usage(self) -> Usage:
        return self._counter.usage

    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """Returns the samples of each request, in order.

        A request that cannot be served gives samples with a fault and a reason.
        """
        await self.start()
        return list(await asyncio.gather(*(self._answer(request) for request in requests)))

    async def _answer(self, request: Request) -> list[Sample]:
        from vllm.exceptions import VLLMError
        from vllm.v1.engine.exceptions import EngineGenerateError

        num_samples = request.num_samples
        try:
            text = self._renderer.prompt(request)
            request = self._with_pattern(request, text)
            ids = await self._encode(text)
        except Exception as error:  # a chat template may raise anything on odd roles
            return [failed("error", f"chat template: {cause_of(error)}")] * num_samples
        room = self._max_model_len - len(ids)
        if room < 1:
            reason = f"prompt of {len(ids)} tokens, context of {self._max_model_len}"
            return [failed("too_long", reason, num_prompt_tokens=len(ids))] * num_samples
        max_tokens = min(request.sampling.max_tokens, room)
        self._in_flight += 1
        try:
            if request.budget is not None and request.reasoning is None:
                return await self._within_budget(request, ids, max_tokens, ending=text)
            return await self._sample(request, ids, max_tokens, ending=text)
        except EngineStopped:
            # An engine that died stays dead: only a new process, which Ray starts, loads it again.
            _end_process("engine died and is restarted")
            raise
        except (ValueError, VLLMError, EngineGenerateError) as error:
            return [failed("error", cause_of(error), num_prompt_tokens=len(ids))] * num_samples
        finally:
            self._in_flight -= 1

    def render(self, messages: Sequence[Message], *, raw: bool = False) -> str:
        """Returns the chat template's text, as `Renderer.render`."""
        return self._renderer.render(messages, raw=raw)

    def _with_pattern(self, request: Request, prompt: str) -> Request:
        """Returns the request with its form as a regular expression, if it is held to one."""
        if not isinstance(request.form, ReplyForm):
            return request
        is_given = request.reasoning is not None
        start = "answer" if is_given else self._splitter.start_after(prompt)
        if start != "answer" and self.config.reasoning_parser:
            # vLLM holds a model whose reasoning it parses to the form from the answer on.
            start = "after reasoning"
        return replace(request, form=request.form.pattern(start))

    async def _encode(self, text: str) -> list[int]:
        encode = self._renderer.encode
        # Long text would hold up the event loop, and with it every other request.
        return await asyncio.to_thread(encode, text) if len(text) > 50_000 else encode(text)

    async def _sample(
        self, request: Request, ids: list[int], max_tokens: int, *, ending: str
    ) -> list[Sample]:
        """Returns the samples of a request; `ending` is that of its prompt's text."""
        final = await self._generate(request, ids, max_tokens)
        samples = []
        for output in final.outputs:
            if request.reasoning is None:
                reply = self._splitter.split(output.token_ids, ending=ending)
            else:
                reply = self._splitter.split_after(output.token_ids, reasoning=request.reasoning)
            samples.append(_sample_of(reply, output, len(ids), final.num_cached_tokens))
        return samples

    async def _within_budget(
        self, request: Request, ids: list[int], max_tokens: int, *, ending: str
    ) -> list[Sample]:
        """Returns samples whose reasoning is closed after `budget` tokens and then answered."""
        assert request.budget is not None
        if self.config.reasoning_parser:
            return await self._within_budget_by_parser(request, ids, max_tokens, ending=ending)
        opening = await self._encode(self._renderer.frame.opening)
        if max_tokens <= len(opening) + request.budget:
            # The output ends before the budget does.
            return await self._sample(request, ids, max_tokens, ending=ending)
        beginnings: list[Any] = [None] * request.num_samples
        if request.budget:
            first = await self._generate(request, ids, len(opening) + request.budget)
            beginnings = list(first.outputs)
        samples = (self._finish(request, ids, opening, output, max_tokens) for output in beginnings)
        return list(await asyncio.gather(*samples))

    async def _within_budget_by_parser(
        self, request: Request, ids: list[int], max_tokens: int, *, ending: str
    ) -> list[Sample]:
        """The same for a model with other marks: vLLM knows them, and closes the reasoning."""
        assert request.budget is not None
        limit = request.budget
        final = await self._generate(request, ids, max_tokens, thinking_token_budget=limit)
        samples = []
        for output in final.outputs:
            reply = self._splitter.split(output.token_ids, ending=ending)
            by_force = reply.num_reasoning_tokens >= limit
            samples.append(replace(_sample_of(reply, output, len(ids)), closed_by_force=by_force))
        return samples

    async def _finish(
        self, request: Request, ids: list[int], opening: list[int], beginning: Any, max_tokens: int
    ) -> Sample:
        """Returns a sample from its beginning on; reasoning that is still open is closed."""
        ending = self._renderer.frame.prompt_ending
        if beginning is not None and beginning.finish_reason != "length":
            reply = self._splitter.split(beginning.token_ids, ending=ending)
            return _sample_of(reply, beginning, len(ids))
        start = opening if beginning is None else list(beginning.token_ids)
        closing = self._splitter.find_closing(start, min(len(opening), len(start)))
        by_force = closing.start == len(start)
        if by_force:
            start = start + await self._encode(self._renderer.frame.between)
        if len(start) >= max_tokens:
            reply = Reply(ReplyStatus.UNCLOSED, self._splitter.decode(start), "")
            return Sample(reply, "length", len(ids), num_output_tokens=len(start))
        final = await self._generate(
            replace(request, num_samples=1), ids + start, max_tokens - len(start)
        )
        [output] = final.outputs
        reply = self._splitter.split(start + list(output.token_ids), ending=ending)
        sample = _sample_of(reply, output, len(ids), final.num_cached_tokens)
        return replace(
            sample,
            num_output_tokens=len(start) + len(output.token_ids),
            closed_by_force=by_force,
        )

    async def _generate(
        self, request: Request, ids: list[int], max_tokens: int, **options: Any
    ) -> Any:
        """Returns the engine's final output for a request, with all its samples."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        pattern = request.form
        assert not isinstance(pattern, ReplyForm)
        parameters = SamplingParams(
            n=request.num_samples,
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            max_tokens=max_tokens,
            # Only whole outputs leave the engine: a message per token would fill the event loop.
            output_kind=RequestOutputKind.FINAL_ONLY,
            # The splitter needs the special tokens, which vLLM's own text leaves out.
            detokenize=False,
            structured_outputs=StructuredOutputsParams(regex=pattern) if pattern else None,
            **options,
        )
        self._next_id += 1
        assert self._core is not None
        prompt = {"prompt_token_ids": ids}
        final = await self._core.generate(str(self._next_id), prompt, parameters)
        assert len(final.outputs) == request.num_samples
        return final


def _end_ids(llm: Any, tokenizer: Any) -> set[int]:
    """Returns the tokens that end a reply: the tokenizer's, and the model's generation config's."""
    config = llm.vllm_config.model_config.try_get_generation_config()
    more = config.get("eos_token_id", [])
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    return ends | set(more if isinstance(more, list) else [more])


def _sample_of(
    reply: Reply, output: Any, num_prompt_tokens: int, num_cached_tokens: int | None = None
) -> Sample:
    """Returns a sample of a reply and the output of vLLM that it was split from."""
    return Sample(
        reply=reply,
        finish_reason=output.finish_reason,
        num_prompt_tokens=num_prompt_tokens,
        num_cached_tokens=num_cached_tokens or 0,
        num_output_tokens=len(output.token_ids),
    )


def _end_process(reason: str) -> None:
    """Ends this process and vLLM's own below it, so that Ray starts a new one.

    At once, by `os._exit`: an exception would end a task of the event loop and leave the actor, and
    vLLM's processes would outlive it and keep the GPU.
    """
    logging.getLogger("precept.engine").error(reason)
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(1)
