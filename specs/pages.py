"""A Markdown file of a pack → its front matter and blocks, with every word or a fault.

Whatever Markdown would hide, flatten or drop (comments, link definitions, tables, code, lists that
are nested too deep) is a fault with its line, so that no word is lost on the way to a model.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from specs.policy import PackError


@dataclass(slots=True)
class Faults:
    """The faults of a pack found so far, each a sentence with file, line, fault and remedy."""

    found: list[tuple[str, int, str]] = field(default_factory=list)

    def add(self, path: Path, line: int | None, fault: str, remedy: str) -> None:
        """Adds a fault; `line` counts from 1, and is None for the file or folder as a whole."""
        place = str(path) if line is None else f"{path}:{line}"
        entry = (str(path), line or 0, f"{place}: {fault}; {remedy}")
        if entry not in self.found:
            self.found.append(entry)

    def raise_any(self) -> None:
        """Raises PackError with all faults, one a line, by file and line; does nothing if there
        are none."""
        if self.found:
            raise PackError("\n".join(self.sentences))

    @property
    def sentences(self) -> list[str]:
        """The faults by file and line."""
        return [sentence for _, _, sentence in sorted(self.found)]

    @property
    def paths(self) -> set[str]:
        """The files, or the folder, that have a fault."""
        return {path for path, _, _ in self.found}


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a page on one line: a heading, a paragraph or a list item."""

    kind: Literal["h1", "h2", "text", "item"]
    text: str
    line: int
    """Line in the file, from 1."""


@dataclass(frozen=True, slots=True)
class Page:
    """A Markdown file: its front matter, and its body as a row of blocks."""

    path: Path
    front: Mapping[str, str]
    lines: Mapping[str, int]
    """Line of each key of the front matter."""
    blocks: tuple[Block, ...]
    faults: Faults
    has_front: bool = True
    """False if the file has no front matter that can be read; that is one fault, not one a key."""
    is_read: bool = True
    """False if the file could not be read at all."""

    @classmethod
    def read(cls, path: Path, faults: Faults) -> "Page":
        """Returns the page in a file; what is wrong with it is added to the faults."""
        try:
            # Newlines alone end a line: other separators of Unicode must not begin a heading.
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            faults.add(path, line, f"not UTF-8 ({error.reason})", "save the file as UTF-8")
            return cls(path, {}, {}, (), faults, has_front=False, is_read=False)
        except OSError as error:
            reason = error.strerror or "unreadable"
            faults.add(path, None, f"cannot be read ({reason})", "make it readable")
            return cls(path, {}, {}, (), faults, has_front=False, is_read=False)
        _refuse_controls(path, lines, faults)
        end = _front_end(lines)
        if end is None:
            unclosed = lines[0].strip() == "---"
            if unclosed:
                faults.add(path, 1, "front matter never ends", "close it with '---'")
            else:
                faults.add(path, 1, "no front matter", "begin the file with a line '---'")
            body = lines[1:] if unclosed else lines
            start = 2 if unclosed else 1
            return cls(path, {}, {}, _blocks(path, body, start, faults), faults, has_front=False)
        front = _front_matter(path, lines[1:end], faults)
        blocks = _blocks(path, lines[end + 1 :], end + 2, faults)
        if front is None:
            return cls(path, {}, {}, blocks, faults, has_front=False)
        values = {key: value for key, (value, _) in front.items()}
        return cls(path, values, {key: line for key, (_, line) in front.items()}, blocks, faults)

    def fault(self, line: int, fault: str, remedy: str) -> None:
        """Adds a fault of this page."""
        self.faults.add(self.path, line, fault, remedy)

    def line_of(self, key: str) -> int:
        return self.lines.get(key, 2)

    def take(self, key: str) -> str:
        """Returns a value of the front matter, or an empty text if it is missing: a fault."""
        value = self.front.get(key, "").strip()
        if not value and self.has_front:
            self.fault(self.line_of(key), f"front matter has no {key!r}", f"add a line '{key}: …'")
        return value

    def refuse_other_keys(self, allowed: Sequence[str]) -> None:
        for key in self.front:
            if key not in allowed:
                self.fault(
                    self.line_of(key),
                    f"unknown key {key!r} in front matter",
                    f"use {', '.join(allowed)}",
                )

    def sections(self, allowed: Sequence[str]) -> dict[str, list[Block]]:
        """Returns the blocks below each level-1 heading that is allowed; others are faults."""
        headings = ", ".join(f"'# {heading}'" for heading in allowed)
        sections: dict[str, list[Block]] = {}
        current: list[Block] | None = None
        for block in self.blocks:
            if block.kind == "h1":
                if block.text not in allowed:
                    fault = f"unknown section {block.text!r}"
                    self.fault(block.line, fault, f"use {', '.join(allowed)}")
                    current = []
                else:
                    current = sections.setdefault(block.text, [])
            elif current is None:
                fault = f"text before the first section: {block.text!r}"
                self.fault(block.line, fault, f"put it below one of {headings}")
                # One fault for all of the text before the first section.
                current = []
            else:
                current.append(block)
        return sections


def _front_end(lines: Sequence[str]) -> int | None:
    """Returns the index of the line that ends the front matter, or None if there is none."""
    if lines[0].strip() != "---":
        return None
    return next((i for i, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)


_ODD_BREAK = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
"""Characters that end a line to YAML or to a model, and not in a text editor."""
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufdd0-\ufdef\ufffe\uffff]")
_COMMENT = re.compile("<!--|-->")


def _refuse_controls(path: Path, lines: Sequence[str], faults: Faults) -> None:
    """Adds a fault for each line with a control character."""
    for number, line in enumerate(lines, 1):
        control = _CONTROL.search(line)
        if control:
            fault = f"control character U+{ord(control[0]):04X}"
            faults.add(path, number, fault, "take it out of the file")


def _front_matter(
    path: Path, lines: Sequence[str], faults: Faults
) -> dict[str, tuple[str, int]] | None:
    """Returns each key's value as it is written (`version: 1.10` stays so) and its line.

    None if it is no list of `key: value` lines.
    """
    odd = [number for number, line in enumerate(lines, 2) if _ODD_BREAK.search(line)]
    for number in odd:
        faults.add(
            path, number, "an odd line separator in front matter", "write each value on one line"
        )
    if odd or any(map(_CONTROL.search, lines)):
        return None
    try:
        node = yaml.compose("\n".join(lines), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        faults.add(
            path,
            2 + (mark.line if mark else 0),
            f"front matter is not YAML ({str(error).splitlines()[0]})",
            "write 'key: value' lines, and quote a value that holds ': '",
        )
        return None
    if node is not None and not isinstance(node, yaml.MappingNode):
        faults.add(path, 2, "front matter must be 'key: value' lines", "write one for each key")
        return None
    front: dict[str, tuple[str, int]] = {}
    for key, value in node.value if node else []:
        line = key.start_mark.line + 2
        name = key.value if isinstance(key, yaml.ScalarNode) else "a list or mapping"
        if not (isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)):
            fault = f"{name!r} must have one value in front matter"
        elif name in front:
            fault = f"{name!r} must have one value in front matter, and stands twice"
        elif _COMMENT.search(value.value):
            fault = f"{name!r} holds an HTML comment, which a model would be shown"
        elif len(value.value.strip().splitlines()) > 1 or _CONTROL.search(value.value):
            # An escape such as \n or \x1b, or a block of lines.
            fault = f"{name!r} holds a line break or a control character"
        else:
            front[name] = (value.value, line)
            continue
        faults.add(path, line, fault, "write each key once as 'key: value', on one line")
        front.setdefault(str(name), ("?", line))
    return front


_HIDDEN = {
    "code_block": "a code or HTML block, which no model would be shown",
    "fence": "a code or HTML block, which no model would be shown",
    "html_block": "a code or HTML block, which no model would be shown",
    "table_open": "a table, whose rows a model would read as one line",
}
"""Tokens of markdown-it that have no place in a spec."""
_LINK_DEFINITION = re.compile(r"\[[^\]]+\]:")


def _blocks(path: Path, lines: Sequence[str], first: int, faults: Faults) -> tuple[Block, ...]:
    """Returns the blocks of a body whose first line has this number; faults are added."""
    parser = MarkdownIt("commonmark").enable("table").disable("reference")
    tokens = parser.parse("\n".join(lines))
    blocks = []
    for block in _flatten(tokens, path, first, faults):
        fault = _fault_of_text(block.text)
        if fault:
            faults.add(path, block.line, *fault)
        else:
            blocks.append(block)
    _refuse_lost_lines(tokens, path, lines, first, faults)
    return tuple(blocks)


def _flatten(tokens: Sequence[Token], path: Path, first: int, faults: Faults) -> Iterator[Block]:
    """Yields headings, paragraphs and list items; hidden ones are added to the faults."""
    heading = ""
    depth = 0
    number = ""
    in_table = False
    for token in tokens:
        line = (token.map[0] if token.map else 0) + first
        if token.type == "heading_open":
            heading = token.tag
            if depth:
                faults.add(path, line, "a heading within a list item", "write it as a sentence")
        elif token.type == "list_item_open":
            depth += 1
            # The number of an ordered list is a word that another line may point to.
            number += f"{token.info}{token.markup} " if token.info else ""
        elif token.type == "list_item_close":
            depth -= 1
            number = ""
        elif token.type == "table_close":
            in_table = False
        if token.type in _HIDDEN:
            in_table = token.type == "table_open"
            remedy = "write it as a paragraph or a list item, without indentation"
            faults.add(path, line, _HIDDEN[token.type], remedy)
        elif token.type == "inline" and not in_table:
            text = " ".join(token.content.split())
            kind: Literal["h1", "h2", "text", "item"] = "item" if depth else "text"
            if heading:
                kind = "h1" if heading == "h1" else "h2"
            yield Block(kind, number + text, line)
            heading = number = ""


def _fault_of_text(text: str) -> tuple[str, str] | None:
    """Returns the fault of a block's text and the remedy, or None."""
    if _COMMENT.search(text):
        return "an HTML comment, which a model would be shown", "take it out of the file"
    if _LINK_DEFINITION.match(text):
        return (
            f"a link definition, which Markdown hides: {text!r}",
            "write it as a sentence that does not begin with '[…]:'",
        )
    return None


def _refuse_lost_lines(
    tokens: Sequence[Token], path: Path, lines: Sequence[str], first: int, faults: Faults
) -> None:
    """Adds a fault for each line that has words and is in no block, such as a list that is nested
    deeper than the parser goes."""
    kept: set[int] = set()
    for token in tokens:
        if token.map and (token.type == "inline" or token.type in _HIDDEN):
            kept.update(range(*token.map))
    for index, line in enumerate(lines):
        if index not in kept and re.search(r"\w", line):
            faults.add(
                path,
                first + index,
                f"a line that Markdown would drop: {line.strip()!r}",
                "write it as a paragraph or a list item that is nested less deep",
            )
