"""Conflicts: rows that say different things of one prompt, found whatever the order of the rows.

A row speaks of its prompt by its categories and its ideal response. A row that gives one of them
not at all contradicts none that does; rows that agree are duplicates, and what any of them says
holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

_NUM_NAMED = 5
"""Prompts that are named."""
_NUM_ROWS = 3
"""Rows that are named of a prompt: one for each label."""
_DISPUTED = "disputed"


class Label(NamedTuple):
    """The labels that a row gives its prompt."""

    categories: tuple[str, ...]
    """Sorted; empty if the row gives none."""
    ideal_response: str | None

    def __str__(self) -> str:
        """Returns the label for a message: "boats+fish, refuse"."""
        given = ("+".join(self.categories), self.ideal_response)
        return ", ".join(part for part in given if part) or "nothing"

    def contradicts(self, other: "Label") -> bool:
        """Returns whether both give categories, or an ideal response, that differ."""
        pairs = zip(self, other, strict=True)
        return any(mine and theirs and mine != theirs for mine, theirs in pairs)


class Labels:
    """The labels that rows have given each prompt so far."""

    def __init__(self) -> None:
        # Bytes, and each label once, because millions of prompts may be held.
        self._labels: dict[bytes, Label] = {}
        self._distinct: dict[Label, Label] = {}
        self._disputed: set[bytes] = set()

    def add(self, prompt_id: bytes, label: Label) -> None:
        """Notes what one more row says of a prompt."""
        before = self._labels.get(prompt_id, label)
        if before.contradicts(label):
            self._disputed.add(prompt_id)
        joined = _join(before, label)
        self._labels[prompt_id] = self._distinct.setdefault(joined, joined)

    def of(self, prompt_id: bytes) -> Label | None:
        """Returns what all rows say of a prompt together; None if there is no row.

        Of rows that disagree: all their categories, and no ideal response if it is disputed.
        """
        label = self._labels.get(prompt_id)
        if label and label.ideal_response == _DISPUTED:
            return label._replace(ideal_response=None)
        return label

    def is_disputed(self, prompt_id: bytes) -> bool:
        """Returns whether rows say different things of a prompt."""
        return prompt_id in self._disputed


def _join(one: Label, other: Label) -> Label:
    ideals = {one.ideal_response, other.ideal_response} - {None}
    return Label(
        tuple(sorted({*one.categories, *other.categories})),
        ideals.pop() if len(ideals) == 1 else _DISPUTED if ideals else None,
    )


@dataclass(frozen=True, slots=True)
class Conflicts:
    """Prompts of which rows say different things."""

    num_prompts: int = 0
    named: tuple[str, ...] = ()
    """The first of them by their ids, each label with a row that has it. Never their texts."""

    def __bool__(self) -> bool:
        return self.num_prompts > 0


@dataclass(slots=True)
class ConflictLog:
    """The rows of disputed prompts, as they are read."""

    _rows: dict[str, dict[Label | str, str]] = field(default_factory=dict)
    """By prompt id: the place of the first row with each label."""

    def add(self, prompt_id: str, label: Label | str, place: str) -> None:
        """Notes a row of a disputed prompt, with its label or with what else it says."""
        self._rows.setdefault(prompt_id, {}).setdefault(label, place)

    def summary(self) -> Conflicts:
        """Returns the number of disputed prompts, and the first few by name."""
        ids = sorted(self._rows)
        return Conflicts(
            len(ids), tuple(_named(name, self._rows[name]) for name in ids[:_NUM_NAMED])
        )


def _named(prompt_id: str, places: Mapping[Label | str, str]) -> str:
    """Returns a prompt's rows: "0123456789ab: boats, refuse (a.jsonl:3); fish, refuse (…)"."""
    rows = [f"{label} ({place})" for label, place in sorted(places.items(), key=_by_label)]
    more = [f"{len(rows) - _NUM_ROWS} more"] if len(rows) > _NUM_ROWS else []
    return f"{prompt_id[:12]}: {'; '.join([*rows[:_NUM_ROWS], *more])}"


def _by_label(item: tuple[Label | str, str]) -> tuple[str, str]:
    return str(item[0]), item[1]
