"""Several engine actors as one engine: what one was asked that is lost, another answers.

A lost engine is started anew by Ray wherever there is room for it, which may be nowhere until a
node comes back. Meanwhile those that are left do the work.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from tasks.engine.requests import Request, Sample, failed

_TRIES = 3
_SECONDS_TO_RETURN = 1800.0


class EnginesLost(ConnectionError):
    """No engine is left, and none has come back; that may pass."""


class Replicas:
    """Asks the engine with the least to do. What ends three engines is an error of its requests.

    The third one they have to themselves, so that they take no others with them.
    """

    def __init__(self, handles: Sequence[Any]) -> None:
        self._all = [_Replica(handle) for handle in handles]
        self._alone = asyncio.Lock()
        self._changed = asyncio.Condition()

    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """Samples for each request, in order; a request that ends engines says so."""
        from ray.exceptions import RayActorError

        reason = ""
        for attempt in range(_TRIES):
            try:
                if attempt < _TRIES - 1:
                    return await self._ask(requests)
                async with self._alone:
                    await self._until(lambda: not any(one.in_flight for one in self._all))
                    return await (await self._ready()).ask(requests)
            except RayActorError as error:
                reason = f"engine died: {str(error).splitlines()[0]}"
            finally:
                async with self._changed:
                    self._changed.notify_all()
        return [[failed("error", reason)] * request.num_samples for request in requests]

    async def _ask(self, requests: Sequence[Request]) -> list[list[Sample]]:
        while True:
            await self._until(lambda: not self._alone.locked())
            replica = await self._ready()
            # While it was awaited, others may have been given the engines to themselves.
            if not self._alone.locked():
                return await replica.ask(requests)

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)

    async def _ready(self) -> "_Replica":
        """The engine with the least to do; waits for one where none is there.

        Raises EnginesLost where none will be, and what an engine raised that cannot load its model:
        neither is a fault of any request.
        """
        from ray.exceptions import RayActorError

        while True:
            for replica in self._all:
                replica.start()
            starting = [one.starting for one in self._all if one.starting is not None]
            # An engine that is there is known at once.
            done, coming = await asyncio.wait(starting, timeout=0)
            ready = [one for one in self._all if one.is_ready]
            if ready:
                # Of engines with as much to do, the one that has done less: none stays idle.
                return min(ready, key=lambda one: (one.in_flight, one.num_asked))
            for faulty in done:
                if not isinstance(faulty.exception(), RayActorError):
                    faulty.result()
            if not coming:
                raise EnginesLost("no engine is left, and none is started anew")
            back, _ = await asyncio.wait(
                coming, timeout=_SECONDS_TO_RETURN, return_when=asyncio.FIRST_COMPLETED
            )
            if not back:
                raise EnginesLost(f"no engine came back within {_SECONDS_TO_RETURN:.0f} s")


class _Replica:
    """One engine actor, which may be starting."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.starting: asyncio.Future[Any] | None = None
        self.in_flight = 0
        self.num_asked = 0

    @property
    def is_ready(self) -> bool:
        starting = self.starting
        return bool(starting and starting.done() and starting.exception() is None)

    def start(self) -> None:
        """Asks for the model to be loaded, which Ray keeps asking while the engine starts anew."""
        if self.starting is None:
            call = self.handle.start.options(max_task_retries=_TRIES - 1).remote()
            self.starting = asyncio.ensure_future(call)

    async def ask(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """Samples for each request; raises RayActorError where the engine is lost."""
        from ray.exceptions import RayActorError

        began = self.starting
        self.in_flight += 1
        self.num_asked += 1
        try:
            call = self.handle.generate.options(max_task_retries=0)
            samples: list[list[Sample]] = await call.remote(requests)
            return samples
        except RayActorError:
            # Others that were asked of the same life may have said so already.
            if self.starting is began:
                self.starting = None
            raise
        finally:
            self.in_flight -= 1
