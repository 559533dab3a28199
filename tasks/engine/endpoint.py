"""One endpoint as an engine: requests over HTTP by the `openai` client, in place of vLLM's.

Retries, their waits and broken connections are the client's business. What a server does not do as
it was asked is found out by its answers, and what would cost or spoil every further request ends
the work: the requests that are left come back as never asked, those in flight are still paid for
and kept.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
from pydantic import SecretStr

from specs.prompts import Message, neutralise, with_text
from tasks.engine.endpoint_config import EndpointConfig
from tasks.engine.endpoint_faults import Fault, fault_of, words_of
from tasks.engine.endpoint_form import Form
from tasks.engine.endpoint_reply import Tokens, samples_of
from tasks.engine.families import marks_of
from tasks.engine.requests import UNASKED, WITHHELD, EngineConfig, Request, Sample, failed
from tasks.engine.spending import Charge, Ledger, Reservation
from tasks.engine.turns import TurnRules, asked_to_think
from tasks.engine.usage import Usage
from tasks.engine.usage_counter import UsageCounter
from warehouse.home import Home

_TOKENS_OF_FRAME = 256
"""More tokens than a chat template puts around a prompt."""
_TURNS = TurnRules(arguments="text")
"""The turns of the API itself; how a model is shown them is the server's business."""
_PREFILLED = (
    "replies close reasoning that they do not open: start the server with the --reasoning-parser "
    "of its model"
)
_UNMETERED = "the server does not tell tokens, so rows have none and a budget counts the most"


def turns_of(request: Request, config: EngineConfig) -> list[dict[str, Any]]:
    """Returns the messages as the API takes them, and breaks what could pass for structure."""
    messages: Sequence[Message] = request.messages
    if not request.raw:
        messages = [with_text(message, neutralise) for message in messages]
    if config.reasons == "prompted":
        messages = asked_to_think(messages)
    return _TURNS.apply(messages)


class Throttle:
    """Lets so many requests through at a time: half as many after a 429, one more after as many
    good replies."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._num_good = 0
        self._shrunk_at = 0.0
        self.limiter = anyio.CapacityLimiter(most)

    def note_refusal(self) -> None:
        """Notes a 429; those of the same moment count once."""
        if time.monotonic() - self._shrunk_at > 1.0:
            self._shrunk_at = time.monotonic()
            self._num_good = 0
            self.limiter.total_tokens = max(1, int(self.limiter.total_tokens) // 2)

    def note_reply(self) -> None:
        """Notes a good reply."""
        self._num_good += 1
        if self._num_good >= self.limiter.total_tokens < self._most:
            self._num_good = 0
            self.limiter.total_tokens += 1


class EndpointEngine:
    """An engine that asks a server. Made inside an actor; answers on the actor's event loop."""

    def __init__(
        self,
        config: EngineConfig,
        key: SecretStr | None = None,
        *,
        home: Home | None = None,
        live_folder: str | None = None,
    ) -> None:
        """Takes the key from whoever has it in the environment, which an actor may not.

        `home` is the warehouse that keeps the account; None: what is spent is forgotten.
        """
        assert config.endpoint is not None
        self.config = config
        self.endpoint: EndpointConfig = config.endpoint
        self._key = key
        self._home = home
        self._form = Form()
        self._ended: Fault | None = None
        self._marks = marks_of(
            config.reasoning_parser, chat_template_kwargs=config.chat_template_kwargs
        )
        live = Path(live_folder) / f"{os.getpid()}.json" if live_folder else None
        self._counter = UsageCounter(live)
        self._http: Any = None
        self._client: Any = None

    async def start(self) -> None:
        """Makes the client. Nothing is asked: the first request tells what the server is like."""
        if self._client is not None:
            return
        import openai

        # The module imports the client's libraries, which a process without an endpoint spares.
        from tasks.engine.endpoint_client import EndpointClient

        self._throttle = Throttle(
            max(1, self.endpoint.max_in_flight // max(1, self.config.replicas))
        )
        self._ledger = Ledger(
            self.endpoint, self.config.model, home=self._home, replicas=self.config.replicas
        )
        self._http = EndpointClient(on_try=self._note_try, on_refusal=self._note_refusal)
        self._client = openai.AsyncOpenAI(
            base_url=self.endpoint.url,
            # The client would look for a key of its own, and send it to whoever the server is.
            api_key=self._key.get_secret_value() if self._key else "none",
            max_retries=self.endpoint.retries,
            timeout=self.endpoint.timeout_seconds,
            http_client=self._http,
        )

    async def stop(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.close()

    async def usage(self) -> Usage:
        return self._counter.usage

    async def generate(self, requests: Sequence[Request]) -> list[list[Sample]]:
        """Returns the samples of each request, in order.

        A request that cannot be served gives samples with a fault and a reason.
        """
        await self.start()
        return list(await asyncio.gather(*(self._answer(request) for request in requests)))

    async def _answer(self, request: Request) -> list[Sample]:
        """Returns the samples of a request: asked for at once, and those that are left one by one,
        where the server gives fewer."""
        if request.budget is not None or request.reasoning is not None:
            # Refused before the work begins; a server would go on as if nothing had been said.
            reason = "an endpoint cannot be given reasoning, nor a limit of it"
            return [failed("error", reason)] * request.num_samples
        samples: list[Sample] = []
        if request.num_samples > 1 and self._form.takes_several:
            samples = await self._ask(request, request.num_samples)
            if len(samples) < request.num_samples:
                self._adopt(Form(takes_several=False))
        left = request.num_samples - len(samples)
        asked = await asyncio.gather(*(self._ask(request, 1) for _ in range(left)))
        return [*samples, *(sample for [sample] in asked)]

    async def _ask(self, request: Request, count: int) -> list[Sample]:
        """Returns at most `count` samples, and one at least: of one request that was sent, or with
        the fault that it met."""
        import openai

        from tasks.engine.endpoint_client import BudgetReached, Tries

        async with self._throttle.limiter:
            turns = turns_of(request, self.config)
            most = self._most(request, turns, count)
            reservation = Reservation(self._ledger, most)
            if self._ended is None and not await reservation.hold():
                self._ended = Fault(UNASKED, self._ledger.refusal(most))
            if self._ended is not None:
                return [failed(self._ended.kind, self._ended.reason)] * count
            tries = Tries(reservation)
            self._http.tries.set(tries)
            try:
                async with asyncio.timeout(self.endpoint.seconds_to_give_up):
                    reply = await self._send(request, turns, count)
                tokens = Tokens.of(reply)
                reservation.charge = self._book(tokens, most)
            except BudgetReached:
                return self._failed(Fault(UNASKED, self._ledger.refusal(most)), count)
            except (openai.OpenAIError, TimeoutError, ValueError) as error:
                words = words_of(error, self._key)
                fault = fault_of(error, self.endpoint, words, refused_with=tries.refused_with)
                return self._failed(fault, count)
            finally:
                await reservation.release()
        return self._samples(reply, tokens, count)

    async def _send(self, request: Request, turns: list[dict[str, Any]], count: int) -> Any:
        """Returns the server's reply; asks again without what it refuses."""
        import openai

        form = self._form
        while True:
            several = count if form.takes_several else 1
            fields = form.fields(request, several, self.config)
            try:
                reply = await self._client.chat.completions.create(
                    model=self.config.model, messages=turns, extra_body=fields
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                words = words_of(error, self._key)
                simpler = form.without(words, fields)
                is_of_row = fault_of(error, self.endpoint, words).kind != "error"
                if simpler is None or is_of_row:
                    raise
                form = simpler
                continue
            # Only now: the server may have refused the request for what stands in it.
            self._adopt(form)
            return reply

    def _samples(self, reply: Any, tokens: Tokens, count: int) -> list[Sample]:
        """Returns the samples of a reply that was paid for, of the right model."""
        model = getattr(reply, "model", None)
        names = (self.config.model, *self.endpoint.served_as)
        if model and model not in names:
            return self._failed(
                Fault(
                    UNASKED,
                    f"the server at {self.endpoint.url} answers as model {model!r} and not "
                    f"{self.config.model!r}; set model to it, or endpoint.served_as = "
                    f'["{model}"] if it is the same',
                ),
                count,
            )
        choices = [one for one in getattr(reply, "choices", None) or [] if one.message is not None]
        if not choices:
            where = f"the server at {self.endpoint.url}"
            return [failed("error", f"{where} gave an answer without any message")] * count
        samples = samples_of(
            choices[:count], tokens, marks=self._marks, reasons=bool(self.config.reasons)
        )
        opening, closing = self._marks.opening.strip(), self._marks.closing
        texts = [str(choice.message.content or "") for choice in choices]
        if any(closing in text and opening not in text for text in texts):
            self._counter.note(_PREFILLED)
        self._throttle.note_reply()
        return samples

    def _failed(self, fault: Fault, count: int) -> list[Sample]:
        if fault.kind in WITHHELD:
            self._ended = self._ended or fault
        return [failed(fault.kind, fault.reason)] * count

    def _most(self, request: Request, turns: list[dict[str, Any]], count: int) -> Charge:
        """Returns the most that a request can take. A token has a byte at least."""
        prompt = len(str(turns).encode()) + _TOKENS_OF_FRAME
        return self._charge(prompt=prompt, cached=0, output=count * request.sampling.max_tokens)

    def _charge(self, *, prompt: int, cached: int, output: int) -> Charge:
        prices = self.endpoint.prices
        money = prices.cost(prompt=prompt, cached=cached, output=output) if prices else 0.0
        return Charge(prompt + output, money)

    def _book(self, tokens: Tokens, most: Charge) -> Charge:
        """Counts the usage of a reply; returns what it is charged with."""
        told = tokens.is_told
        prompt, output, cached = tokens.prompt or 0, tokens.output or 0, tokens.cached or 0
        charge = self._charge(prompt=prompt, cached=cached, output=output) if told else most
        self._counter.add(
            Usage(
                prompt_tokens=prompt,
                cached_tokens=cached,
                output_tokens=output,
                steps=1,
                unmetered=int(not told),
                cost=charge.money if told else 0.0,
                notes=() if told else (_UNMETERED,),
            )
        )
        return charge

    def _adopt(self, form: Form) -> None:
        """Leaves out of every request what the server has refused."""
        if form != self._form:
            self._form = self._form.both(form)
            for note in self._form.notes:
                self._counter.note(note)

    def _note_try(self) -> None:
        self._counter.add(Usage(requests=1))

    def _note_refusal(self, status: int) -> None:
        if status == 429:
            self._throttle.note_refusal()
