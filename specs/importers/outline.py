"""A Model Spec in Markdown → its sections, each with the blocks of its text and their lines."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

from specs.importers.names import category_of, unique

_HEADING = re.compile(r"^(?P<title>.*?)\s*\{#(?P<anchor>[\w-]+)(?P<attributes>[^}]*)\}$")
_ATTRIBUTE = re.compile(r"(\w+)=(\S+)")
_EXAMPLE = re.compile(r"\*\*Example\*\*:")
_NOTE = re.compile(r"!!! ?\w+")
_COMMENT_MARK = re.compile("<!--|-->")
_INDENT = re.compile(r"^(?: {4}|\t)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A piece of a section on neighbouring lines."""

    kind: Literal["text", "list", "note", "title", "code", "other"]
    """`list` is any block that keeps its lines: a list, a table or a quotation. `title` is the line
    that names an example, `code` the fence that may follow it."""
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
    heading: Block
    blocks: list[Block] = field(default_factory=list)

    @property
    def line(self) -> int:
        return self.heading.line

    @property
    def authority(self) -> str:
        return re.sub(r"[^a-z0-9_-]+", "_", self.attributes.get("authority", "").lower())


def read_outline(lines: Sequence[str]) -> tuple[list[Block], list[Section]]:
    """Returns the blocks before the first heading, and the sections in reading order.

    A `# ` line inside an example is none: it stands in a fence.
    """
    before: list[Block] = []
    sections: list[Section] = []
    parser = MarkdownIt("commonmark").enable("table").disable("reference")
    pairs = pairwise([*parser.parse("\n".join(lines)), Token("end", "", 0)])
    tokens = [(token, inner) for token, inner in pairs if token.level == 0 and token.map]
    for token, inner in tokens:
        start, end = token.map or (0, 0)
        if token.type == "heading_open":
            section = _section(" ".join(inner.content.split()), token, lines[start:end])
            if section.title:
                sections.append(section)
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
        section.anchor = unique(anchor, taken)
        taken.add(section.anchor)


def _section(text: str, token: Token, lines: Sequence[str]) -> Section:
    number = token.map[0] + 1 if token.map else 1
    match = _HEADING.match(text)
    title = (match["title"] or match["anchor"].replace("_", " ")) if match else text
    return Section(
        level=int(token.tag[1:]),
        title=_COMMENT_MARK.sub("", title),
        anchor=match["anchor"] if match else "",
        attributes=dict(_ATTRIBUTE.findall(match["attributes"])) if match else {},
        heading=Block(kind="text", lines=tuple(lines), line=number),
    )


_KINDS: Mapping[str, Literal["list", "code"]] = {
    "bullet_list_open": "list",
    "ordered_list_open": "list",
    "table_open": "list",
    "blockquote_open": "list",
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
