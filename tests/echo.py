"""Work for tests of the stage: a completion for each word, made from the engine's reply to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.engine.requests import Engine, Request, Sampling
from tests.rows import completion
from warehouse.catalog import Pending
from warehouse.tables import COMPLETIONS, Completion, Table


@dataclass(frozen=True)
class Word:
    """A unit: a text to send to the engine."""

    id: str
    block_key: str


@dataclass(frozen=True)
class Echo:
    """Work that makes a row per unit, with the status of its sample."""

    run_id: str = "r"
    name: str = "echo"
    table: Table = COMPLETIONS
    unit: type[Word] = Word

    def pending(self, connection: Any) -> Pending:
        raise NotImplementedError  # the units are given

    async def make(self, units: Sequence[Word], engine: Engine) -> list[Completion]:
        requests = [
            Request([{"role": "user", "content": unit.id}], 1, Sampling()) for unit in units
        ]
        outputs = await engine.generate(requests)
        return [
            completion(unit.id, status=sample.status, reason=sample.reason)
            for unit, [sample] in zip(units, outputs, strict=True)
        ]
