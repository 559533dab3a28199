"""A Model Spec in Markdown → its sections, each with the blocks of its text and their lines."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

from specs.importers.names import category_of

_HEADING = re.compile(r"^(?P<title>.*?)\s*\{#(?P<anchor>[\w-]+)(?P<attributes>[^}]*)\}$")
_ATTRIBUTE = re.compile(r"(\w+)=(\S+)")
_EXAMPLE = re.compile(r"\*\*Example\*\*:")
_NOTE = re.compile(r"!!! ?\w+")
_INDENT = re.compile(r"^(?: {4}|\t)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A piece of a section on neighbouring lines."""

    kind: Literal["text", "list", "note", "title", "code", "other"]
    """`title` is the line that names an example, `code` the fence that may follow it."""
    lines: tuple[str, ...]
    line: int
    """Line of the first in the document, from 1."""

    @property
    def numbered(self) -> Iterator[tuple[int, str]]:
        return enumerate(self.lines, self.line)


@dataclass(slots=True, kw_only=True)
class Section:
    """A heading, and the text below it up to the next heading of any level."""

    level: int
    title: str
    anchor: str
    attributes: Mapping[str, str]
    line: int
    blocks: list[Block] = field(default_factory=list)

    @property
    def authority(self) -> str:
        return self.attributes.get("authority", "")


def read_outline(lines: Sequence[str]) -> tuple[list[Block], list[Section]]:
    """Returns the blocks before the first heading, and the sections in reading order.

    A `# ` line inside an example is none: it stands in a fence.
    """
    before: list[Block] = []
    sections: list[Section] = []
    parser = MarkdownIt("commonmark").enable("table").disable("reference")
    tokens = [token for token in parser.parse("\n".join(lines)) if token.level == 0 and token.map]
    for token in tokens:
        start, end = token.map or (0, 0)
        if token.type == "heading_open":
            sections.append(_section(lines[start], token, start + 1))
            continue
        blocks = sections[-1].blocks if sections else before
        kind = _kind(token, lines[start], blocks)
        blocks.append(Block(kind=kind, lines=tuple(lines[start:end]), line=start + 1))
    _name(sections)
    return before, sections


def _name(sections: Sequence[Section]) -> None:
    """Gives each section an anchor of its own: one made of its title if it has none, and one with a
    number if another section has the same."""
    taken: set[str] = set()
    for section in sections:
        anchor = section.anchor or category_of(section.title)
        numbered = (f"{anchor}_{number}" for number in count(2))
        section.anchor = next(x for x in chain([anchor], numbered) if x not in taken)
        taken.add(section.anchor)


def _section(line: str, token: Token, number: int) -> Section:
    text = line.strip().lstrip("#").strip()
    match = _HEADING.match(text)
    return Section(
        level=int(token.tag[1:]),
        title=match["title"] if match else text,
        anchor=match["anchor"] if match else "",
        attributes=dict(_ATTRIBUTE.findall(match["attributes"])) if match else {},
        line=number,
    )


_KINDS: Mapping[str, Literal["list", "code"]] = {
    "bullet_list_open": "list",
    "ordered_list_open": "list",
    "fence": "code",
}


def _kind(
    token: Token, line: str, above: Sequence[Block]
) -> Literal["text", "list", "note", "title", "code", "other"]:
    if token.type == "code_block":
        # Indented text continues a note whose body begins after a blank line.
        return "note" if above and above[-1].kind == "note" else "text"
    if token.type != "paragraph_open":
        return _KINDS.get(token.type, "other")
    if _NOTE.match(line):
        return "note"
    return "title" if _EXAMPLE.match(line) else "text"


def unindented(line: str) -> str:
    """Returns a line without one level of indentation."""
    return _INDENT.sub("", line)
