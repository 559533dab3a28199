"""A vLLM engine that a thread of this process steps, for callers on one event loop.

vLLM's own `AsyncLLM` runs its engine in a second process, which imports vLLM and torch once more:
half the time of a start on a CPU, and 0.7 GB of memory.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any


class EngineStopped(RuntimeError):
    """The engine has failed, or was stopped, and answers nothing more."""


class SteppedEngine:
    """An `LLMEngine`. Its thread makes it, steps it and alone touches it, but for its tokenizer."""

    def __init__(self, make: Callable[[], Any]) -> None:
        """Starts the thread, in which `make` returns the engine."""
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._made: Future[None] = Future()
        self._fault: BaseException | None = None
        self.llm: Any = None
        """The engine; None until its model is loaded."""
        self._thread = threading.Thread(target=self._run, args=[make], name="vllm", daemon=True)
        self._thread.start()

    async def made(self) -> None:
        """Returns once the model is loaded; raises what its making raised."""
        await asyncio.wrap_future(self._made)

    async def generate(self, request_id: str, prompt: Any, parameters: Any) -> Any:
        """Returns the final output of a request, with all its samples.

        Raises what vLLM raises for a request that it refuses, and EngineStopped.
        """
        if self._fault is not None:
            raise EngineStopped(str(self._fault)) from self._fault
        answer = self._waiting[request_id] = self._loop.create_future()
        self._calls.put(partial(self._add, request_id, prompt, parameters))
        try:
            return await answer
        except asyncio.CancelledError:
            self._calls.put(lambda: self.llm.abort_request([request_id]))
            raise
        finally:
            del self._waiting[request_id]

    def stop(self) -> None:
        """Has the thread end after its current step; requests without an answer get none."""
        self._calls.put(None)
        self._thread.join()

    def _run(self, make: Callable[[], Any]) -> None:
        try:
            self.llm = make()
        except BaseException as error:
            self._made.set_exception(error)
            return
        self._made.set_result(None)
        fault: BaseException = EngineStopped("the engine was stopped")
        try:
            while self._take_calls():
                for output in self.llm.step():
                    if output.finished:
                        self._tell(output.request_id, output)
            self.llm.engine_core.shutdown()
        except BaseException as error:
            fault = error
        self._loop.call_soon_threadsafe(self._end, fault)

    def _take_calls(self) -> bool:
        """Does what callers want, and waits for them while there is nothing to step.

        Returns False once the thread shall end.
        """
        while True:
            try:
                call = self._calls.get(block=not self.llm.has_unfinished_requests())
            except Empty:
                return True
            if call is None:
                return False
            call()

    def _add(self, request_id: str, prompt: Any, parameters: Any) -> None:
        try:
            self.llm.add_request(request_id, prompt, parameters)
        except Exception as error:
            # Samples of it may have been added before one was refused.
            self.llm.abort_request([request_id])
            self._tell(request_id, error)

    def _tell(self, request_id: str, answer: Any) -> None:
        self._loop.call_soon_threadsafe(self._set, request_id, answer)

    def _set(self, request_id: str, answer: Any) -> None:
        waiting = self._waiting.get(request_id)
        if waiting is None or waiting.done():
            return  # whoever asked was cancelled meanwhile
        if isinstance(answer, BaseException):
            waiting.set_exception(answer)
        else:
            waiting.set_result(answer)

    def _end(self, fault: BaseException) -> None:
        self._fault = fault
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(EngineStopped(str(fault)))
