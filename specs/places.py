"""The lines of a pack's files: where its rules, their items, terms and summaries stand."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from specs.policy import Policy

_RULE = re.compile(r"^##\s+(?P<id>[A-Z]{1,3}[0-9]{1,2})\s")
_HEADING = re.compile(r"^##?\s")
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
class Places:
    """The Markdown files of a pack, and the headings of its rules."""

    files: Mapping[Path, Sequence[str]]
    rules: Mapping[str, Place]
    folder: Path

    @classmethod
    def of(cls, folder: str | Path) -> "Places":
        """Reads the files of a pack that could be loaded."""
        place = Path(folder)
        files = {
            path: path.read_text(encoding="utf-8-sig").split("\n")
            for path in sorted(place.glob("*.md"))
            if path.is_file()
        }
        rules: dict[str, Place] = {}
        for path, lines in files.items():
            for number, line in enumerate(lines, 1):
                if match := _RULE.match(line):
                    rules.setdefault(match["id"], Place(path, number))
        return cls(files, rules, place)

    def of_policy(self, policy: Policy, text: str = "") -> Place:
        """Returns the first line of a policy's file that holds a text, or begins with it."""
        first = self.rules.get(policy.rules[0].id) if policy.rules else None
        if first is None:
            return Place(self.folder, 1)
        return Place(first.path, self._line_of(first.path, text, 1, None))

    def of_key(self, policy: Policy, key: str) -> Place:
        """Returns the line of a key of a policy's front matter; the first line without it."""
        return self.of_policy(policy, f"{key}:")

    def of_rule(self, rule_id: str, text: str = "") -> Place:
        """Returns the line of a rule at which a text begins; that of its heading without it."""
        place = self.rules.get(rule_id)
        if place is None:
            return Place(self.folder, 1)
        lines = self.files[place.path]
        ends = (
            number
            for number, line in enumerate(lines[place.line :], place.line + 1)
            if _HEADING.match(line)
        )
        return Place(place.path, self._line_of(place.path, text, place.line, next(ends, None)))

    def _line_of(self, path: Path, text: str, first: int, end: int | None) -> int:
        """Returns the line within a range at which a text begins; the first if none does."""
        wanted = " ".join(text.split())[:_PREFIX].lower()
        lines = self.files[path]
        stop = len(lines) + 1 if end is None else end
        for number in range(first, stop) if wanted else ():
            line = " ".join(lines[number - 1].split()).lower()
            below = " ".join(" ".join(lines[number : number + 2]).split()).lower()
            if 0 <= f"{line} {below}".find(wanted) < len(line):
                return number
        return first
