"""The account of a warehouse at an endpoint, kept beside its tables and held against the budget.

Each engine writes a file of its own after every reply, so that a kill loses no account of what was
paid, and adds up the files of all others when it starts.
"""

import asyncio
import json
import uuid
from dataclasses import dataclass
from pathlib import Path

from tasks.engine.endpoint_config import Budget, EndpointConfig
from warehouse.files import write_whole
from warehouse.home import Home
from warehouse.tables import content_id

FOLDER = "endpoints"
"""Folder of a warehouse that holds the accounts."""


@dataclass(frozen=True, slots=True)
class Charge:
    """Tokens, and what they cost at the endpoint's prices."""

    tokens: int = 0
    money: float = 0.0

    def __add__(self, other: "Charge") -> "Charge":
        return Charge(self.tokens + other.tokens, self.money + other.money)

    def __sub__(self, other: "Charge") -> "Charge":
        return Charge(self.tokens - other.tokens, self.money - other.money)


class Ledger:
    """The account of one engine at an endpoint.

    Several replicas do not see each other's spending while they run: each has an equal share of
    what the budget leaves.
    """

    def __init__(
        self,
        endpoint: EndpointConfig,
        model: str,
        *,
        home: Home | None = None,
        replicas: int = 1,
    ) -> None:
        """Reads what was spent before; `home` is the warehouse, None to keep no account in one."""
        self._endpoint = endpoint
        self._model = model
        self._home = home
        self._replicas = replicas
        name = content_id(endpoint.url.rstrip("/"), model)[:12]
        self._folder = f"{home.root}/{FOLDER}/{name}" if home else ""
        self._path = f"{self._folder}/{uuid.uuid4().hex}.json"
        self._before = self._read()
        self._own = self._written = Charge()
        self._reserved: list[Charge] = []
        self._changed = asyncio.Condition()
        self._writing = asyncio.Lock()

    async def reserve(self, most: Charge) -> bool:
        """Sets aside the most that a request could take; returns False if the budget lacks it.

        Waits for the requests in flight first: most take less than was set aside for them.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._fits(most) or not self._reserved)
            if not self._fits(most):
                return False
            self._reserved.append(most)
            return True

    async def settle(self, most: Charge, actual: Charge) -> None:
        """Books what a request took in place of what was set aside for it."""
        async with self._changed:
            self._reserved.remove(most)
            self._own += actual
            self._changed.notify_all()
        if self._home is None:
            return
        # One at a time: an earlier sum must not come to stand over a later one.
        async with self._writing:
            if self._written != (own := self._own):
                await asyncio.to_thread(self._write, self._home, own)
                self._written = own

    def refusal(self, most: Charge) -> str:
        """Returns the sentence on a request that the budget does not allow."""
        budget, spent = self._budget, self._before + self._own
        shared = f" (shared by {self._replicas} replicas)" if self._replicas > 1 else ""
        if budget.money is not None and not self._fits_in(budget.money, "money", most):
            return (
                f"endpoint.budget.money is {budget.money:g}{shared} and {spent.money:.4g} of it "
                f"are spent at {self._endpoint.url}; the next request could cost "
                f"{most.money:.2g}: raise it"
            )
        return (
            f"endpoint.budget.tokens is {budget.tokens}{shared} and {spent.tokens} of them are "
            f"spent at {self._endpoint.url}; the next request could take {most.tokens}: raise it"
        )

    @property
    def _budget(self) -> Budget:
        assert self._endpoint.budget is not None
        return self._endpoint.budget

    def _fits(self, most: Charge) -> bool:
        budget = self._endpoint.budget
        if budget is None:
            return True
        limits = {"money": budget.money, "tokens": budget.tokens}
        return all(
            self._fits_in(limit, name, most) for name, limit in limits.items() if limit is not None
        )

    def _fits_in(self, limit: float, name: str, most: Charge) -> bool:
        own = sum(getattr(charge, name) for charge in (self._own, *self._reserved, most))
        left = (limit - getattr(self._before, name)) / self._replicas
        return bool(own <= left)

    def _read(self) -> Charge:
        """Returns what all files of this endpoint and model come to."""
        if self._home is None:
            return Charge()
        total = Charge()
        files = self._home.files
        for path in files.glob(f"{self._folder}/*.json"):
            entry = json.loads(files.cat_file(path))
            total += Charge(int(entry["tokens"]), float(entry["money"]))
        return total

    def _write(self, home: Home, own: Charge) -> None:
        entry = {"url": self._endpoint.url, "model": self._model}
        text = json.dumps(entry | {"tokens": own.tokens, "money": own.money})
        if not home.is_local:
            home.files.pipe_file(self._path, text.encode())
            return
        Path(self._folder).mkdir(parents=True, exist_ok=True)
        with write_whole(Path(self._path)) as partial:
            partial.write_text(text, encoding="utf-8")


class Reservation:
    """The most that one request could take, set aside from its first try to its last."""

    def __init__(self, ledger: Ledger, most: Charge) -> None:
        self.charge = Charge()
        """Cost of the latest try: from when it begins the most, until more is known."""
        self._ledger = ledger
        self._most = most
        self._is_held = False

    async def hold(self) -> bool:
        """Sets aside the most that the request could take; returns False if the budget lacks it."""
        self._is_held = self._is_held or await self._ledger.reserve(self._most)
        return self._is_held

    async def begin_try(self) -> bool:
        """Books the try before, if it may be paid for, and sets aside as much again; returns False
        if the budget lacks it."""
        if self.charge != Charge():
            await self.release()
        if not await self.hold():
            return False
        self.charge = self._most
        return True

    async def release(self) -> None:
        """Books what the latest try came to, and frees the rest."""
        charge, self.charge = self.charge, Charge()
        if self._is_held:
            self._is_held = False
            await self._ledger.settle(self._most, charge)
