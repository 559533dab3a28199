"""Prints how two runs differ: settings, policies, rows, metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from flows import terminal
from flows.show import table, value_text
from specs.parts import Change
from warehouse.reports.compare import Compared


def compared(found: Compared, changes: Sequence[Change], *, as_json: bool) -> None:
    """Prints a comparison, with the changes of the policies between its runs."""
    if as_json:
        terminal.as_json({**asdict(found), "policies": [asdict(change) for change in changes]})
        return
    if found.note:
        terminal.line(found.note)
    if found.is_same:
        return
    parts: list[tuple[str, Sequence[Mapping[str, Any]]]] = [
        ("What was asked differently", found.settings),
        ("Policies that were edited", [asdict(change) for change in changes]),
    ]
    if found.same_kind:
        parts += [
            ("What was made", found.counts),
            ("Metrics: B less A [95 % interval over prompts, paired]", found.metrics),
        ]
    for title, rows in parts:
        terminal.line("")
        if rows:
            table(pa.table(_columns(rows)), title=title)
        else:
            terminal.line(f"{title}: nothing to tell")


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Returns rows of mixed values as columns; a column that is not all numbers becomes text."""
    columns: dict[str, list[Any]] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        whole = all(one is None or type(one) is int for one in values)
        real = all(one is None or type(one) is float for one in values)
        columns[name] = values if whole or real else [value_text(value) for value in values]
    return columns
