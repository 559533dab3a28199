"""The links and footnote marks of a Model Spec → words that a model can follow.

[?](#be_clear)             → "Be clear and direct" (BC41)
[answer first](#be_clear)  → answer first (BC41)
"""

import re
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from specs.importers.imported import HIDDEN, Leftovers
from specs.importers.names import free_id, prefix_of
from specs.importers.outline import Section

_MARK = re.compile(
    r"\[\^(?P<note>[^\]]+)\]|<!--(?P<comment>.*?)-->"
    r"|\[(?P<text>[^\[\]]+)\]\((?:#(?P<anchor>[\w-]+)|(?P<address>[^)\s]+))\)"
)
_NOTE_TEXT = re.compile(r"\[\^(?P<note>[^\]]+)\]:")


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """The names by which links call the sections of a document."""

    titles: Mapping[str, str]
    """By anchor."""
    marks: Mapping[str, str]
    """Citations of rules and policies, by anchor: `BC41`, `policy style`."""
    notes: Collection[str]
    """The footnotes that the document has."""
    left: Leftovers

    def prose(self, line: str, number: int) -> str:
        """Returns a line with its links as words; what they lose is left over."""
        if _NOTE_TEXT.match(line):
            self.left.add(number, line, "a footnote")
            return ""
        return _MARK.sub(lambda match: self._words(match, number), line)

    def cited(self, anchor: str) -> str:
        """Returns the title of a section in quotes, with the id of its rule."""
        mark = self.marks.get(anchor)
        title = f'"{self.titles.get(anchor, anchor)}"'
        return title + (f" ({mark})" if mark else "")

    def _words(self, match: re.Match[str], number: int) -> str:
        if match["comment"]:
            self.left.add(number, match["comment"], HIDDEN)
            return ""
        if match["note"]:
            missing = "" if match["note"] in self.notes else ", whose note is not in the document"
            self.left.add(number, match[0], f"a footnote mark{missing}")
            return ""
        if match["address"]:
            self.left.add(number, match["address"], "the address of a link, whose words stay")
            return match["text"]
        anchor = match["anchor"]
        if anchor not in self.titles:
            self.left.add(number, anchor, "a link to an anchor that the document does not have")
        if match["text"] == "?":
            return self.cited(anchor)
        mark = self.marks.get(anchor)
        return match["text"] + (f" ({mark})" if mark else "")


def notes_of(lines: Iterable[str]) -> set[str]:
    """Returns the names of the footnotes whose text the document has."""
    return {match["note"] for line in lines if (match := _NOTE_TEXT.match(line))}


def rule_ids(sections: Sequence[Section]) -> dict[str, str]:
    """Returns the rule id of each anchor: the initials of its first three words and a number.

    The number is made from the anchor alone, so that an id stays when sections are added, moved or
    edited. Of two anchors with the same id, the second gets the next that is free.
    """
    ids: dict[str, str] = {}
    for section in sections:
        number = zlib.crc32(section.anchor.encode()) % 99 + 1
        ids[section.anchor] = free_id(prefix_of(section.anchor), set(ids.values()), number)
    return ids
