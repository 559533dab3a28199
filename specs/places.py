"""The lines of a pack's files: where its rules, their items, terms and summaries stand."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from specs.blocks import Block
from specs.pages import Faults, Page
from specs.policy import Policy

_RULE = re.compile(r"(?P<id>[A-Z]{1,3}[0-9]{1,2})\s")
_PREFIX = 30
"""Characters by which a text is found; the rest may stand on further lines."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line of a file, from 1."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines of a rule in a file: that of its heading, and the one after its last."""

    path: Path
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Places:
    """The Markdown files of a pack, and the lines of its rules."""

    folder: Path
    files: Mapping[Path, Sequence[str]]
    keys: Mapping[Path, Mapping[str, int]]
    """By file, the lines of the keys of its front matter."""
    rules: Mapping[str, _Lines]

    @classmethod
    def of(cls, folder: str | Path) -> "Places":
        """Reads the files of a pack; one that is not UTF-8 has no lines."""
        place = Path(folder)
        files: dict[Path, list[str]] = {}
        keys: dict[Path, Mapping[str, int]] = {}
        rules: dict[str, _Lines] = {}
        for path in filter(Path.is_file, sorted(place.glob("*.md"))):
            page = Page.read(path, Faults())
            files[path] = path.read_text("utf-8-sig").split("\n") if page.is_read else []
            keys[path] = page.lines
            # Those of blocks: a line of code or of a comment may look like a heading.
            heads = [block for block in page.blocks if _begins_part(block)]
            ends = [*(head.line for head in heads[1:]), len(files[path]) + 1]
            for head, end in zip(heads, ends, strict=True) if heads else ():
                if match := _RULE.match(head.text):
                    rules.setdefault(match["id"], _Lines(path, head.line, end))
        return cls(place, files, keys, rules)

    def of_policy(self, policy: Policy, text: str = "") -> Place:
        """Returns the first line of a policy's file at which a text begins; the first without."""
        path = self._path_of(policy)
        if path is None:
            return Place(self.folder, 1)
        return self._place_of(_Lines(path, 1, len(self.files[path]) + 1), text)

    def of_key(self, policy: Policy, key: str) -> Place:
        """Returns the line of a key of a policy's front matter; the first line without it."""
        path = self._path_of(policy)
        if path is None:
            return Place(self.folder, 1)
        return Place(path, self.keys[path].get(key, 1))

    def of_rule(self, rule_id: str, text: str = "") -> Place:
        """Returns the line of a rule at which a text begins; that of its heading without it."""
        lines = self.rules.get(rule_id)
        return self._place_of(lines, text) if lines else Place(self.folder, 1)

    def _path_of(self, policy: Policy) -> Path | None:
        first = self.rules.get(policy.rules[0].id) if policy.rules else None
        return first.path if first else None

    def _place_of(self, lines: _Lines, text: str) -> Place:
        """Returns the line within a range at which a text begins; the first if none does."""
        wanted = " ".join(text.split())[:_PREFIX].lower()
        file = self.files[lines.path]
        for number in range(lines.first, lines.end) if wanted else ():
            line = " ".join(file[number - 1].split()).lower()
            below = " ".join(" ".join(file[number : number + 2]).split()).lower()
            if 0 <= f"{line} {below}".find(wanted) < len(line):
                return Place(lines.path, number)
        return Place(lines.path, lines.first)


def _begins_part(block: Block) -> bool:
    """Returns True for the heading of a section or a rule; an example belongs to its rule."""
    return block.kind in ("h1", "h2") or (
        block.kind == "h3" and not block.text.startswith("Example")
    )
