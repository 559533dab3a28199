"""Tables for people, made from the rows of a question: what stands where, how values are told."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
Rows = Sequence[Row]
Shown = Callable[[Row], "Cell"]
"""What is shown of a row in one column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One value, with what belongs to it."""

    text: str = ""
    interval: str = ""
    mark: str = ""
    notes: tuple[str, ...] = ()
    struck: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One row of a table. Without cells it heads those that follow."""

    label: str
    cells: tuple[Cell, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table for people."""

    caption: str
    columns: tuple[str, ...]
    """The first one stands over the labels."""
    lines: tuple[Line, ...]
    folded: bool = False


def pivot(
    rows: Rows,
    *,
    caption: str,
    corner: str,
    label: str,
    cell: Shown,
    group: str = "",
    column: str = "{arm}",
    before: Mapping[str, Shown] | None = None,
    folded: bool = False,
) -> Grid:
    """A table with a line for each label, under their groups, and a column for each arm.

    `label`, `group` and `column` are filled in with what a row holds. Columns of `before` stand
    first and are made from the first row of a line: [{arm: a, metric: m}, {arm: b, metric: m}] with
    the label "{metric}" → one line m with columns a and b.
    """
    columns = list(dict.fromkeys(column.format_map(row) for row in rows))
    first = before or {}
    lines = []
    for heading, members in grouped(rows, group.format_map).items():
        if heading:
            lines.append(Line(label=heading))
        for text, ours in grouped(members, label.format_map).items():
            found = {column.format_map(row): cell(row) for row in ours}
            cells = [show(ours[0]) for show in first.values()]
            cells += [found.get(name, Cell(text="–")) for name in columns]
            lines.append(Line(label=text, cells=tuple(cells)))
    return Grid(
        caption=caption, columns=(corner, *first, *columns), lines=tuple(lines), folded=folded
    )


def table(
    rows: Rows,
    *,
    corner: str,
    label: str,
    columns: Mapping[str, Shown],
    caption: str = "",
    folded: bool = False,
) -> Grid:
    """A table with a line for each row; `label` is filled in with what the row holds."""
    lines = tuple(
        Line(label=label.format_map(row), cells=tuple(show(row) for show in columns.values()))
        for row in rows
    )
    return Grid(caption=caption, columns=(corner, *columns), lines=lines, folded=folded)


def number(value: float | None) -> str:
    """Three decimals; a dash where there is no value."""
    return "–" if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    """Three decimals with their sign."""
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def percent(share: float | None) -> str:
    """A share in hundredths."""
    return "–" if share is None else f"{share:.1%}".replace("%", " %")


def rounded(value: float | None) -> str:
    """A count, thousands apart."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def plain(value: Any) -> str:
    """A value as it is."""
    return "–" if value is None else str(value)


def shown(column: str, show: Callable[[Any], str] = plain) -> Shown:
    """What a row holds in a column, told in a certain way."""
    return lambda row: Cell(text=show(row[column]))


def interval(
    low: float | None, high: float | None, *, show: Callable[[float | None], str] = number
) -> str:
    """Both ends in brackets; nothing where one is missing."""
    return "" if low is None or high is None else f"[{show(low)}, {show(high)}]"


def grouped(rows: Rows, key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """Rows by what a key says of them, in the order in which that comes first."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def split(rows: Rows, *columns: str) -> list[tuple[Any, ...]]:
    """What some columns hold and, last, the rows that hold it."""
    found = grouped(rows, lambda row: tuple(row[column] for column in columns))
    return [(*key, ours) for key, ours in found.items()]
