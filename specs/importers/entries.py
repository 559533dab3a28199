"""The Markdown of a document → its entries: list items, paragraphs and other blocks, with what is
nested in them kept as Markdown."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

_PARSER = MarkdownIt("commonmark").enable("table").disable("reference")
_MARKER = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])(?:[ \t]|$)")
_PARAGRAPHS = ("paragraph_open", "heading_open")


@dataclass(slots=True, kw_only=True)
class Entry:
    """A list item, a paragraph, or a table, code or other block as it is written."""

    kind: Literal["item", "text", "block"]
    text: str
    """On one line, and without the marker of an item; a block has its lines."""
    line: int
    """Line in the document, from 1."""
    marker: str = "-"
    """`-` of a bullet, the number of an ordered item."""
    written: tuple[str, ...] = ()
    """The lines of the paragraph as they stand in the document."""
    below: list["Entry"] = field(default_factory=list)
    """The entries nested in an item."""

    @property
    def body(self) -> str:
        """The text with what is nested in it, as Markdown."""
        return _joined([self.text, markdown(self.below)])


def read_entries(lines: Sequence[str], first: int) -> list[Entry]:
    """Returns the entries of lines of which the first has this number in the document."""
    tokens = _PARSER.parse("\n".join(lines))
    return [
        entry
        for token, inner in zip(tokens, [*tokens[1:], None], strict=False)
        if token.map and token.level == (1 if token.type == "list_item_open" else 0)
        for entry in _entries(token, inner, lines, first)
    ]


def _entries(token: Token, inner: Token | None, lines: Sequence[str], first: int) -> list[Entry]:
    start, end = token.map or (0, 0)
    if token.type == "list_item_open":
        item = _item(token, lines[start:end], first + start)
        return [item] if item.text else item.below
    if token.type in ("bullet_list_open", "ordered_list_open", "hr"):
        # The items of a list have tokens of their own; a line between texts has no words.
        return []
    if token.type in _PARAGRAPHS and inner:
        written = tuple(line.strip() for line in inner.content.split("\n"))
        text = " ".join(inner.content.split())
        return [Entry(kind="text", text=text, line=first + start, written=written)] if text else []
    text = "\n".join(lines[start:end]).rstrip()
    return [Entry(kind="block", text=text, line=first + start)]


def _item(token: Token, lines: Sequence[str], line: int) -> Entry:
    match = _MARKER.match(lines[0])
    width = match.end() if match else 0
    content = [lines[0][width:].lstrip(" \t"), *(_dedented(one, width) for one in lines[1:])]
    inner = read_entries(content, line)
    head = inner.pop(0) if inner and inner[0].kind == "text" else None
    return Entry(
        kind="item",
        text=head.text if head else "",
        line=head.line if head else line,
        marker=f"{token.info}{token.markup}" if token.info else "-",
        written=head.written if head else (),
        below=inner,
    )


def _dedented(line: str, width: int) -> str:
    """Returns a line without as much of its indentation as an item's marker is wide."""
    words = line.lstrip(" \t")
    indent = line[: len(line) - len(words)].expandtabs(4)
    return indent[width:] + words


def markdown(entries: Sequence[Entry]) -> str:
    """Returns entries as Markdown, with a blank line wherever one has to stand."""
    parts: list[str] = []
    for entry, above in zip(entries, [None, *entries], strict=False):
        if entry.kind != "item":
            parts += ["", entry.text]
            continue
        mark = f"{entry.marker} "
        first, *others = entry.body.split("\n")
        below = [" " * len(mark) + line if line else "" for line in others]
        continues = above and above.kind == "item" and above.marker[-1] == entry.marker[-1]
        parts += [] if continues else [""]
        parts += [mark + first, *below]
    return "\n".join(parts).strip("\n")


def nested(entry: Entry) -> str:
    """Returns what is nested in an item as further lines of its text."""
    return "\n" + markdown(entry.below) if entry.below else ""


def split(entries: Sequence[Entry], opening: re.Pattern[str]) -> list[Entry]:
    """Returns the entries; a line of a paragraph that begins with the pattern opens another."""
    found = []
    for entry in entries:
        if entry.kind != "text":
            found.append(entry)
            continue
        starts = [i for i, line in enumerate(entry.written) if i and opening.match(line)]
        for start, end in pairwise([0, *starts, len(entry.written)]):
            written = entry.written[start:end]
            text = " ".join(" ".join(written).split())
            found.append(replace(entry, text=text, line=entry.line + start, written=written))
    return found


def _joined(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part)


def each_line(entry: Entry) -> Iterator[tuple[int, str]]:
    """Yields the lines of an entry with their numbers, those of what is nested in it too."""
    lines = entry.written or ((entry.text,) if entry.kind != "block" else entry.text.split("\n"))
    yield from enumerate(lines, entry.line)
    for below in entry.below:
        yield from each_line(below)
