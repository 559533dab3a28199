"""Several engine actors as one engine: if one is lost, another answers its requests.

Ray restarts a lost engine wherever there is room for it, which may be nowhere until a node comes
back. Meanwhile the engines that are left do the work.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from tasks.engine.faults import message_of
from tasks.engine.requests import Request, Sample, failed

_ATTEMPTS = 3
_SECONDS_TO_RESTART = 1800.0
_SECONDS_TO_ASK_AGAIN = 1.0


class EnginesLost(ConnectionError):
    """No engine is left and none has restarted; a later attempt of the stage may find one."""


class Replicas:
    """Asks the engine with the least to do.

    A batch of requests that crashes three engines is recorded as an error. Its third attempt runs
    alone, so no other request is lost with it.
    """

    def __init__(self, handles: Sequence[Any]) -> None:
        self._all = [_Replica(handle) for handle in handles]
        self._alone = asyncio.Lock()
        self._changed = asyncio.Condition()

    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """Returns the samples of each request, in order.

        Requests that crash every engine give samples with a fault. Raises EnginesLost if no engine
        is left.
        """
        from ray.exceptions import RayActorError

        reason = ""
        for attempt in range(_ATTEMPTS):
            try:
                if attempt < _ATTEMPTS - 1:
                    return await self._ask(requests)
                async with self._alone:
                    # Others stop asking while the lock is held: wait until all are answered.
                    await self._until(lambda: not any(replica.in_flight for replica in self._all))
                    return await (await self._ready()).ask(requests)
            except RayActorError as error:
                reason = f"engine died: {message_of(error)}"
            finally:
                async with self._changed:
                    self._changed.notify_all()
        return [[failed("error", reason)] * request.num_samples for request in requests]

    async def _ask(self, requests: Sequence[Request]) -> list[list[Sample]]:
        while True:
            await self._until(lambda: not self._alone.locked())
            replica = await self._ready()
            # A third attempt may have taken the lock while this one waited for an engine.
            if not self._alone.locked():
                return await replica.ask(requests)

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)

    async def _ready(self) -> "_Replica":
        """Returns the engine with the least to do; waits for one if none is ready.

        Raises EnginesLost if none will be, and the error of an engine that cannot load its model:
        neither is a fault of the requests.
        """
        from ray.exceptions import RayActorError

        loop = asyncio.get_running_loop()
        gives_up_at = loop.time() + _SECONDS_TO_RESTART
        while True:
            for replica in self._all:
                replica.start()
            starts = [replica.starting for replica in self._all if replica.starting is not None]
            # Looks without waiting: an engine whose node is lost may never start.
            done, pending = await asyncio.wait(starts, timeout=0)
            ready = [replica for replica in self._all if replica.is_ready]
            if ready:
                # Of engines with as much to do, the one that has done less: none stays idle.
                return min(ready, key=lambda replica: (replica.in_flight, replica.num_asked))
            for failed_start in done:
                if not isinstance(failed_start.exception(), RayActorError):
                    failed_start.result()  # raises
            cut_off = [replica for replica in self._all if replica.is_cut_off]
            if not pending and not cut_off:
                raise EnginesLost("no engine is left, and none is restarted")
            seconds_left = gives_up_at - loop.time()
            if seconds_left < 0:
                raise EnginesLost(f"no engine restarted within {_SECONDS_TO_RESTART:.0f} s")
            if cut_off:
                # Ray has yet to learn whether the process died, which takes a busy machine longer.
                seconds_left = _SECONDS_TO_ASK_AGAIN
                for replica in cut_off:
                    replica.starting = None
            if pending:
                wait = asyncio.FIRST_COMPLETED
                await asyncio.wait(pending, timeout=seconds_left, return_when=wait)
            else:
                await asyncio.sleep(seconds_left)


class _Replica:
    """One engine actor, which may be starting."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.starting: asyncio.Future[Any] | None = None
        """The call that loads the model in the actor's present process; None if that is lost."""
        self.in_flight = 0
        """Batches of requests that it has yet to answer."""
        self.num_asked = 0

    @property
    def is_ready(self) -> bool:
        """True if the model is loaded."""
        starting = self.starting
        return bool(starting and starting.done() and starting.exception() is None)

    @property
    def is_cut_off(self) -> bool:
        """True if Ray could not say, when it asked for the model, whether the process lives."""
        from ray.exceptions import ActorUnavailableError

        starting = self.starting
        if starting is None or not starting.done():
            return False
        return isinstance(starting.exception(), ActorUnavailableError)

    def start(self) -> None:
        """Asks for the model to be loaded; Ray asks again if the process restarts meanwhile."""
        if self.starting is None:
            call = self.handle.start.options(max_task_retries=_ATTEMPTS - 1).remote()
            self.starting = asyncio.ensure_future(call)

    async def ask(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """Returns the samples of each request; raises RayActorError if the engine is lost."""
        from ray.exceptions import RayActorError

        started = self.starting
        self.in_flight += 1
        self.num_asked += 1
        try:
            # No retries by Ray: it would ask the same engine again, while others are ready.
            call = self.handle.generate.options(max_task_retries=0)
            samples: list[list[Sample]] = await call.remote(requests)
            return samples
        except RayActorError:
            # Requests of the same process fail together; the first of them may have asked the
            # new process to start, and that start must be kept.
            if self.starting is started:
                self.starting = None
            raise
        finally:
            self.in_flight -= 1
