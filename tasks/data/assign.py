"""prompts ← prompts without a category: the judge model chooses one of the pack's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import duckdb
import pyarrow as pa

from specs.policy import Pack, Spec
from specs.prompts import assign_messages
from specs.replies import (
    FORM_VERSION,
    CategoryChoice,
    category_form,
    category_line,
    read_category,
)
from specs.template import DEFAULT_SET, Template, load_template
from tasks.data.collected import Collected
from tasks.data.prompt_rows import with_version
from tasks.engine.requests import TRUNCATED, Engine, Request, Sample, Sampling
from tasks.stage import StageConfig
from warehouse.catalog import Pending, find_pending, look_up
from warehouse.tables import PROMPTS, Prompt, Table, Turn, content_id

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
    revision: int
    """The revision that the row of this attempt will be."""
    assigning_attempt: int
    """The attempt that this is; from 0."""
    was_unread: bool
    """True if the attempt before it could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignWork:
    """Categories for the prompts of relation `unassigned(block_key, prompt)`.

    Every outcome is a row: `ok` with the category, `unassigned` if the judge found that none fits,
    `unread` if its choice could not be read, and the engine's fault if it could not be asked. The
    last two are retried within a budget, by this run and by later ones. A retry after an unread
    choice asks for the choice alone, without reasoning, so that nothing can take its place.
    """

    pack: Pack
    stage: StageConfig
    run_id: str
    model: str = ""
    """`name@revision` of the judge."""
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=4096))
    """Sampling of the judge."""
    constrain: bool = True
    """Hold the reply to the form of a choice by structured outputs."""
    reasons: bool = True
    """True if the judge reasons before it answers, and can be given empty reasoning instead."""
    template: Template = field(default_factory=partial(load_template, "assign", DEFAULT_SET))
    name: str = "assign"
    table: Table = PROMPTS
    unit: type[AssignUnit] = AssignUnit

    @property
    def assigning_id(self) -> str:
        """Hash of what the judge chooses by: template, summaries, model, sampling and form."""
        return content_id(
            self.template.id,
            self.pack.spec([], detail="summary").id,
            self.model,
            self.sampling.identity,
            self.constrain and FORM_VERSION,
        )

    def pending(self, connection: duckdb.DuckDBPyConnection) -> Pending:
        """Returns the prompts for which the judge is to choose a category, or to choose again."""
        return find_pending(
            connection,
            "prompts",
            wave_rows=self.stage.wave_rows,
            assigning_id=self.assigning_id,
            retries=self.stage.retries,
            error_attempts=self.stage.error_attempts,
        )

    async def make(self, units: Sequence[AssignUnit], engine: Engine) -> list[Prompt]:
        """Returns the next revision of each prompt, with the judge's choice."""
        summaries, assigning_id = self.pack.spec([], detail="summary"), self.assigning_id
        outputs = await engine.generate([self._request(unit, summaries) for unit in units])
        return [
            self._row(unit, sample, assigning_id)
            for unit, (sample,) in zip(units, outputs, strict=True)
        ]

    def _request(self, unit: AssignUnit, summaries: Spec) -> Request:
        categories = list(self.pack.policies)
        messages = assign_messages(
            self.template,
            unit.prompt["messages"],
            spec=summaries,
            categories=categories,
        )
        request = Request(messages=messages, num_samples=1, sampling=self.sampling)
        if not self.constrain:
            return request
        if unit.was_unread:
            reasoning = "" if self.reasons else None
            return replace(request, form=category_line(categories), reasoning=reasoning)
        return replace(request, form=category_form(categories, max_tokens=self.sampling.max_tokens))

    def _row(self, unit: AssignUnit, sample: Sample, assigning_id: str) -> Prompt:
        choice = CategoryChoice("unread")
        if sample.is_whole:
            choice = read_category(sample.reply, list(self.pack.policies))
        changes = {
            "categories": [choice.category] if choice.category else [],
            "status": sample.fault or _STATUSES[choice.status],
            "reason": _reason(sample, choice),
            "assigning_id": assigning_id,
            "assigning_attempt": unit.assigning_attempt,
            "revision": unit.revision,
            "created_at": datetime.now(UTC),
            "messages": [Turn(**turn) for turn in unit.prompt["messages"]],
        }
        return with_version(Prompt(**(unit.prompt | changes)))


def _reason(sample: Sample, choice: CategoryChoice) -> str | None:
    """Returns why a choice is unread; None if it was read."""
    if sample.fault:
        return sample.reason
    if not sample.is_whole:
        return TRUNCATED
    if choice.status != "unread":
        return None
    if not sample.reply.has_answer:
        return f"the reply has no answer ({sample.reply.status.value})"
    return "the last line is not 'Category:' with one of the categories, or none"


def assigned(collected: Collected, connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Returns the prompts that a run wants: columns prompt_id and categories.

    Prompts for which the judge found no category, or whose choice is unread, are not among them.
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


@dataclass(frozen=True, slots=True)
class Assignments:
    """Prompts whose category was left to the judge, after it was asked."""

    num_prompts: Mapping[str, int]
    """By status."""
    reasons: Mapping[str, str]
    """The most frequent reason of each status that has reasons."""


def count_assignments(connection: duckdb.DuckDBPyConnection) -> Assignments:
    """Returns what came of the prompts of relation `unassigned(block_key, prompt)`."""
    rows = look_up(connection, "assignments")
    return Assignments(
        {row["status"]: row["num_prompts"] for row in rows},
        {row["status"]: row["reason"] for row in rows if row["reason"]},
    )
