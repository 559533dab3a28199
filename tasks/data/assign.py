"""prompts ← prompts without a category: the judge model chooses one of the pack's."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa

from specs.policy import Pack
from specs.prompts import assign_messages, load_template
from specs.replies import CategoryChoice, category_pattern, read_category
from tasks.data.collect import Collected, with_version
from tasks.engine.requests import Engine, Request, Sample, Sampling
from tasks.stage import StageConfig
from warehouse.catalog import Pending, find_pending, look_up
from warehouse.tables import PROMPTS, Prompt, Table, Turn

_ROWS_AT_A_TIME = 20_000
_STATUSES = {"ok": "ok", "none": "unassigned", "unread": "unread"}
"""The status of a prompt by that of the judge's choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignUnit:
    """A prompt without a category."""

    block_key: str
    """The same for all prompts of a pack."""
    prompt: dict[str, Any]
    """The row of `prompts` that lacks a category."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignWork:
    """Categories for the prompts of relation `unassigned(block_key, prompt)`.

    Every outcome is a row: `unassigned` if the judge found that no category fits, `unread` if its
    choice cannot be read, and with the engine's fault if it could not be asked. The latter two are
    asked again by the next run.
    """

    pack: Pack
    stage: StageConfig
    run_id: str
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=4096))
    """Sampling of the judge."""
    name: str = "assign"
    table: Table = PROMPTS
    unit: type[AssignUnit] = AssignUnit

    def pending(self, connection: duckdb.DuckDBPyConnection) -> Pending:
        """Returns the prompts that the judge has not been asked about since they were collected."""
        return find_pending(connection, "prompts", wave_rows=self.stage.wave_rows)

    async def make(self, units: Sequence[AssignUnit], engine: Engine) -> list[Prompt]:
        """Returns the next revision of each prompt, with the judge's choice."""
        template = load_template("assign", "spec_first")
        summaries = self.pack.spec([], detail="summary")
        requests = [
            Request(
                messages=assign_messages(
                    template,
                    unit.prompt["messages"],
                    spec=summaries,
                    categories=list(self.pack.policies),
                ),
                num_samples=1,
                sampling=self.sampling,
                pattern=category_pattern(list(self.pack.policies)),
            )
            for unit in units
        ]
        outputs = await engine.generate(requests)
        return [self._row(unit, sample) for unit, (sample,) in zip(units, outputs, strict=True)]

    def _row(self, unit: AssignUnit, sample: Sample) -> Prompt:
        choice = CategoryChoice("unread")
        if sample.is_whole:
            choice = read_category(sample.reply, list(self.pack.policies))
        changes = {
            "categories": [choice.category] if choice.category else [],
            "status": sample.fault or _STATUSES[choice.status],
            "created_at": datetime.now(UTC),
            "messages": [Turn(**turn) for turn in unit.prompt["messages"]],
        }
        return with_version(Prompt(**(unit.prompt | changes)))


def assigned(collected: Collected, connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Returns the prompts that a run wants: columns prompt_id and categories.

    Prompts for which the judge found no category, or could not be asked, are not among them.
    """
    connection.register("unassigned", collected.unassigned)
    rows = look_up(connection, "assigned_prompts")
    chosen_by_id = {row["prompt_id"]: row["categories"] for row in rows}
    schema = collected.prompts.schema
    tables = [schema.empty_table()]
    for batch in collected.prompts.to_batches(max_chunksize=_ROWS_AT_A_TIME):
        prompts = [
            {**row, "categories": row["categories"] or chosen_by_id.get(row["prompt_id"])}
            for row in batch.to_pylist()
        ]
        with_categories = [row for row in prompts if row["categories"]]
        tables.append(pa.Table.from_pylist(with_categories, schema=schema))
    return pa.concat_tables(tables)
