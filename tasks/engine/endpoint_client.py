"""The HTTP client of an endpoint: it minds every try of a request, not only the last.

The `openai` client sends a request again by itself. A try that the server took and never answered
whole may be paid for, and so may one that was given up: what each may cost is booked before another
is sent.
"""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpx2
import openai

from tasks.engine.spending import Charge, Reservation

NOT_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
)
"""Errors of a request that never reached the server."""


class BudgetReached(openai.OpenAIError):
    """A request that the budget does not allow to send again."""

    # The client retries no error of its own kind.


@dataclass
class Tries:
    """The tries of one request."""

    reservation: Reservation
    refused_with: int | None = None
    """Status of the latest refusal. None: the latest try met none."""


class EndpointClient(openai.DefaultAsyncHttpxClient):
    """Books each try with the reservation of its request."""

    def __init__(self, *, on_try: Callable[[], None], on_refusal: Callable[[int], None]) -> None:
        """`on_refusal` takes the status of a refusal."""
        super().__init__()
        self.tries: ContextVar[Tries] = ContextVar("tries")
        """Those of the request that the current task asks."""
        self._on_try = on_try
        self._on_refusal = on_refusal

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Returns the server's response, read whole; raises BudgetReached if the budget cannot bear
        another try."""
        tries = self.tries.get()
        if not await tries.reservation.begin_try():
            raise BudgetReached
        tries.refused_with = None
        self._on_try()
        try:
            response = await super().send(request, **options)
        except NOT_SENT:
            tries.reservation.charge = Charge()
            raise
        if response.is_error:
            tries.reservation.charge = Charge()
            tries.refused_with = response.status_code
            self._on_refusal(response.status_code)
        return response
