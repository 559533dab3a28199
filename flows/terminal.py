"""The terminal: the one way by which commands print, so that no text of data is obeyed.

Whatever a command prints goes through a function of this module, which makes control characters
visible and takes nothing for markup. Text is never cut: it is broken between words for a terminal,
and not at all where there is neither a terminal nor `$COLUMNS`.
"""

import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as Grid
from rich.text import Text

from warehouse.characters import json_text, one_line, visible

_WIDTH_ELSEWHERE = 120
"""Columns of a table where there is neither a terminal nor `$COLUMNS`."""
_NARROWEST = 20
_INDENT = "  "

Part = str | tuple[str, str]
"""A piece of a text, or a piece and its style."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; numbers stand to the right."""

    name: str
    is_number: bool = False


def line(*parts: Part, err: bool = False) -> None:
    """Prints one line, unbroken, so that a command in it can be copied."""
    _print(_assembled(parts, one_line), err=err)


def lines(*each: str, err: bool = False) -> None:
    """Prints each text as one line."""
    for one in each:
        line(one, err=err)


def text(value: str, *, err: bool = False, end: str = "\n") -> None:
    """Prints a text of several lines."""
    print(visible(value), file=sys.stderr if err else sys.stdout, end=end, flush=err)


def exactly(value: str) -> None:
    """Prints a text: as it is into a file or a pipe, with control characters made visible on a
    terminal."""
    if sys.stdout.isatty():
        text(value)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(value.encode("utf-8", "surrogatepass"))
    sys.stdout.buffer.flush()


def as_json(value: Any) -> None:
    """Prints a value as one line of JSON."""
    text(json_text(value))


def heading(title: str) -> None:
    """Prints the title of what follows."""
    _print(Text(one_line(title), style="bold"))


def block(title: str, *parts: Part) -> None:
    """Prints a title and, set in below it, a text: no line of the text can pass for a title."""
    line("")
    heading(title)
    _print(_joined([Text(_INDENT) + part for part in _wrapped(_assembled(parts))]))


def fields(values: Sequence[tuple[str, str]]) -> None:
    """Prints a `name: value` line for each value, whose further lines are set in."""
    for name, value in values:
        first, *others = _wrapped(_assembled([f"{one_line(name)}: {value}"]))
        _print(_joined([first, *(Text(_INDENT) + other for other in others)]))


def entries(values: Sequence[tuple[str, str]]) -> None:
    """Prints a name and a text beside it for each value; further lines of the text are set in."""
    width = max((cell_len(one_line(name)) for name, _ in values), default=0) + 1
    for name, value in values:
        first, *others = _wrapped(_assembled([value], one_line), indent=width)
        named = Text(one_line(name).ljust(width)) + first
        _print(_joined([named, *(Text(" " * width) + other for other in others)]))


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    *,
    title: str | None = None,
    stacked: bool = False,
) -> None:
    """Prints rows as a grid if that fits, else one under the other as `column: value` lines.

    A grid that fits without its rules has none. Each value stands on one line of it; on several if
    values are `stacked`, so that no value of data can pass for another row.
    """
    if title:
        heading(title)
    if not rows:
        line("no rows")
        return
    if stacked or not any("\n" in value for row in rows for value in row):
        for grid in (Grid(), Grid(box=None, pad_edge=False)):
            _fill(grid, columns, rows)
            if _fits(grid):
                _print(grid)
                return
    for number, row in enumerate(rows):
        if number:
            line("")
        fields([(column.name, value) for column, value in zip(columns, row, strict=True)])


def home_option(home: str | None) -> str:
    """Returns the option of the warehouse as the user gave it, for commands that are suggested."""
    return f" --home {shlex.quote(home)}" if home else ""


def console(*, err: bool = False) -> Console:
    """Returns the terminal, which finds no markup, emoji or colours in a text.

    Texts that are given to its `print` must be made visible before.
    """
    stream = sys.stderr if err else sys.stdout
    width = max(_NARROWEST, _columns(stream) or _WIDTH_ELSEWHERE)
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False)


def _assembled(parts: Sequence[Part], show: Callable[[str], str] = visible) -> Text:
    pieces = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*((show(piece), style) for piece, style in pieces))


def _columns(stream: IO[str]) -> int | None:
    """Returns `$COLUMNS`, else the width of the terminal; None if there is neither."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):  # not a terminal, or no file at all
        return None


def _fill(grid: Grid, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    for column in columns:
        justify: Any = "right" if column.is_number else "left"
        grid.add_column(_cell(one_line(column.name)), justify=justify, no_wrap=True)
    for row in rows:
        grid.add_row(*(_cell(visible(value)) for value in row))


def _fits(grid: Grid) -> bool:
    screen = console()
    wide = screen.options.update(max_width=10**6)
    return Measurement.get(screen, wide, grid).maximum <= screen.width


def _cell(value: str) -> Text:
    return Text(value.expandtabs(4), no_wrap=True)


def _wrapped(body: Text, *, indent: int = len(_INDENT)) -> list[Text]:
    """Returns the lines of a text that is set in by `indent`, broken between words where the width
    is known."""
    columns = _columns(sys.stdout)
    lines = list(body.split("\n", allow_blank=True))
    if columns is None:
        return lines
    width = max(_NARROWEST, columns - indent)
    parts = [part for one in lines for part in one.divide(_breaks(one.plain, width))]
    for part in parts:
        part.rstrip()
    return parts


def _breaks(text: str, width: int) -> list[int]:
    """Returns where to break a line, so that a word is whole even if it is wider than the line."""
    breaks, place = [], 0
    for word in re.finditer(r"\s*\S+\s*|\s+", text):
        if place and place + cell_len(word[0].rstrip()) > width:
            breaks.append(word.start())
            place = 0
        place += cell_len(word[0])
    return breaks


def _joined(lines: Sequence[Text]) -> Text:
    return Text("\n").join(lines)


def _print(renderable: Text | Grid, *, err: bool = False) -> None:
    console(err=err).print(renderable, soft_wrap=isinstance(renderable, Text))
