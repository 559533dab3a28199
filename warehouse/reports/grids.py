"""Tables for people, made from the rows of a question: layout and number formats."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]
Rows = Sequence[Row]
Shown = Callable[[Row], "Cell"]
"""Row → its cell in one column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One value with its interval, mark and notes."""

    text: str = ""
    interval: str = ""
    mark: str = ""
    notes: tuple[str, ...] = ()
    struck: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a table; without cells it is the heading of those that follow."""

    label: str
    cells: tuple[Cell, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table for people."""

    caption: str
    columns: tuple[str, ...]
    """Headings; the first one stands over the labels."""
    lines: tuple[Line, ...]
    folded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The arrangement of a table with a line per label and a column per arm.

    `label`, `group` and `column` are filled in with the values of a row.
    """

    caption: str
    corner: str
    """Heading of the labels."""
    label: str
    group: str = ""
    """Heading of the lines that share it. Empty: lines have no headings."""
    column: str = "{arm}"
    before: Mapping[str, Shown] = field(default_factory=dict)
    """Columns that stand first, made from the first row of a line."""
    folded: bool = False


def pivot(rows: Rows, *, cell: Shown, layout: Layout) -> Grid:
    """Returns a table with a line per label, under their groups, and a column per arm.

    Columns stand by the `place` of their rows, if rows have one, whatever row comes first.
    [{arm: a, metric: m}, {arm: b, metric: m}] with the label "{metric}" → one line m with columns
    a and b. A line without a row for a column has a dash there.
    """
    places: dict[str, int] = {}
    for row in rows:
        places.setdefault(layout.column.format_map(row), row.get("place", 0))
    # The sort is stable: columns of one place stay in the order in which rows name them.
    columns = sorted(places, key=places.__getitem__)
    lines = []
    for heading, members in grouped(rows, layout.group.format_map).items():
        if heading:
            lines.append(Line(label=heading))
        for text, ours in grouped(members, layout.label.format_map).items():
            by_column = {layout.column.format_map(row): cell(row) for row in ours}
            cells = [show(ours[0]) for show in layout.before.values()]
            cells += [by_column.get(name, Cell(text="–")) for name in columns]
            lines.append(Line(label=text, cells=tuple(cells)))
    return Grid(
        caption=layout.caption,
        columns=(layout.corner, *layout.before, *columns),
        lines=tuple(lines),
        folded=layout.folded,
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
    """Returns a table with a line per row; `label` is filled in with the values of the row."""
    lines = tuple(
        Line(label=label.format_map(row), cells=tuple(show(row) for show in columns.values()))
        for row in rows
    )
    return Grid(caption=caption, columns=(corner, *columns), lines=lines, folded=folded)


def number(value: float | None) -> str:
    """Returns three decimals, or a dash for None."""
    return "–" if value is None else f"{value:.3f}"


def signed(value: float | None) -> str:
    """Returns three decimals with their sign, or a dash for None."""
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def percent(share: float | None) -> str:
    """Returns a share as a percentage, or a dash for None."""
    return "–" if share is None else f"{share:.1%}".replace("%", " %")


def rounded(value: float | None) -> str:
    """Returns a count with its thousands apart, or a dash for None."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def plain(value: Any) -> str:
    """Returns a value as text, or a dash for None."""
    return "–" if value is None else str(value)


def shown(column: str, show: Callable[[Any], str] = plain) -> Shown:
    """Returns how to show a column: a row → a cell."""
    return lambda row: Cell(text=show(row[column]))


def interval(
    low: float | None, high: float | None, *, show: Callable[[float | None], str] = number
) -> str:
    """Returns both ends in brackets, or nothing if one is None."""
    return "" if low is None or high is None else f"[{show(low)}, {show(high)}]"


def bounded(column: str, low: str, high: str) -> Shown:
    """Returns how to show a column with the interval between two others: a row → a cell."""
    return lambda row: Cell(text=number(row[column]), interval=interval(row[low], row[high]))


def grouped(rows: Rows, key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """Returns rows by key, in the order in which each key comes first."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def split(rows: Rows, *columns: str) -> list[tuple[Any, ...]]:
    """Returns the values of some columns and, last, the rows that hold them."""
    groups = grouped(rows, lambda row: tuple(row[column] for column in columns))
    return [(*key, ours) for key, ours in groups.items()]
