"""A Markdown file of a pack → its front matter, its blocks by section, and the faults found."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import yaml

from specs.blocks import COMMENT, ODD_BREAK, Block, read_blocks
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
            return cls(
                path,
                {},
                {},
                read_blocks(body, start, partial(faults.add, path)),
                faults,
                has_front=False,
            )
        front = _front_matter(path, lines[1:end], faults)
        blocks = read_blocks(lines[end + 1 :], end + 2, partial(faults.add, path))
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


CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufdd0-\ufdef\ufffe\uffff]")


def _refuse_controls(path: Path, lines: Sequence[str], faults: Faults) -> None:
    """Adds a fault for each line with a control character."""
    for number, line in enumerate(lines, 1):
        control = CONTROL.search(line)
        if control:
            fault = f"control character U+{ord(control[0]):04X}"
            faults.add(path, number, fault, "take it out of the file")


def _front_matter(
    path: Path, lines: Sequence[str], faults: Faults
) -> dict[str, tuple[str, int]] | None:
    """Returns each key's value as it is written (`version: 1.10` stays so) and its line.

    None if it is no list of `key: value` lines.
    """
    odd = [number for number, line in enumerate(lines, 2) if ODD_BREAK.search(line)]
    for number in odd:
        faults.add(
            path, number, "an odd line separator in front matter", "write each value on one line"
        )
    if odd or any(map(CONTROL.search, lines)):
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
        elif COMMENT.search(value.value):
            fault = f"{name!r} holds an HTML comment, which a model would be shown"
        elif len(value.value.strip().splitlines()) > 1 or CONTROL.search(value.value):
            # An escape such as \n or \x1b, or a block of lines.
            fault = f"{name!r} holds a line break or a control character"
        else:
            front[name] = (value.value, line)
            continue
        faults.add(path, line, fault, "write each key once as 'key: value', on one line")
        front.setdefault(str(name), ("?", line))
    return front
