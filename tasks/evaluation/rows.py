"""Rows of a suite's source → those that are asked: each counted once, whatever their order.

Equal rows are asked once. Rows that say different things of one prompt are not asked at all: which
of them is right cannot be known, and no figure may rest on which stands last.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from specs.prompts import Message
from tasks.data.candidates import Candidate, short

_MOST_CONFLICTS = 100
"""Conflicts that a run's record names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteFigures:
    """Rows of a suite's source by their outcome; all from `num_prompts` to `faulty` add up to
    `num_rows`."""

    num_rows: int = 0
    num_cases: int = 0
    """Cases of the prompts: one for each attack."""
    num_prompts: int = 0
    """Rows that are asked."""
    num_duplicates: int = 0
    """Rows that are equal to one that is asked."""
    num_conflicting: int = 0
    """Rows that are not asked because others say something else of the same prompt."""
    num_over_limit: int = 0
    """Rows beyond the limit of the evaluation."""
    faulty: Mapping[str, int] = field(default_factory=dict)
    """Rows that cannot be used, by reason."""
    conflicts: tuple[str, ...] = ()
    """The first conflicts, each with two of its rows."""

    @property
    def num_faulty(self) -> int:
        """Rows that cannot be used."""
        return sum(self.faulty.values())

    @property
    def in_words(self) -> str:
        """The counts that are not 0, as "rows 3, cases 1, prompts 1, conflicting 2"."""
        counts = {
            field.name.removeprefix("num_").replace("_", " "): getattr(self, field.name)
            for field in fields(self)
            if field.type is int
        }
        return ", ".join(
            f"{name} {count}" for name, count in {**counts, **self.faulty}.items() if count
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteRow:
    """A row of a suite's source that can be asked."""

    prompt: Candidate
    original: Sequence[Message]
    """The chat before the attack that the row itself names; else the prompt's own."""
    asked_id: str
    """Hash of what is asked: the messages, the attack, and the answer that was given already."""
    original_id: str
    says: Mapping[str, object]
    """What the row says of what is asked, by name."""
    of_original: Mapping[str, object]
    """What the row says of the chat before the attack, by name."""


@dataclass(frozen=True, slots=True)
class _Claims:
    """What rows say of one thing: the texts of their claims, each with its first place."""

    places: dict[str, str] = field(default_factory=dict)

    def add(self, claims: Mapping[str, object], place: str) -> None:
        text = json.dumps(claims, ensure_ascii=False, default=str)
        self.places.setdefault(text, place)

    @property
    def conflict(self) -> str | None:
        """The first two claims that differ, with their rows; None if all rows agree."""
        if len(self.places) < 2:
            return None
        (first, place), (second, other), *more = self.places.items()
        before, after = json.loads(first), json.loads(second)
        differing = (
            f"{name} {_shown(before[name])} and {_shown(after[name])}"
            for name in before
            if before[name] != after[name]
        )
        further = f", and {len(more)} more claims" if more else ""
        return f"{place} and {other}: {', '.join(differing)}{further}"


def _shown(value: object) -> str:
    if isinstance(value, list):
        value = "+".join(map(str, value))
    return "none" if value in (None, "") else short(value)


class SuiteRows:
    """The rows of a source as they are read, and what becomes of them."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.faulty: Counter[str] = Counter()
        self.num_over_limit = 0
        self._rows: dict[str, SuiteRow] = {}
        self._num_rows: Counter[str] = Counter()
        self._of_asked: dict[str, _Claims] = {}
        self._of_originals: dict[str, _Claims] = {}

    def add(self, row: SuiteRow) -> None:
        """Takes in a row that can be asked."""
        name = row.asked_id
        is_full = self.limit is not None and len(self._rows) >= self.limit
        if is_full and name not in self._rows:
            self.num_over_limit += 1
            if row.original_id in self._of_originals:
                self._of_originals[row.original_id].add(row.of_original, row.prompt.place)
            return
        self._rows.setdefault(name, row)
        self._num_rows[name] += 1
        place = row.prompt.place
        self._of_asked.setdefault(name, _Claims()).add(row.says, place)
        self._of_originals.setdefault(row.original_id, _Claims()).add(row.of_original, place)

    @property
    def asked(self) -> list[SuiteRow]:
        """The rows that are asked, in the order of the source, each prompt once."""
        return [row for row in self._rows.values() if not self._has_conflict(row)]

    def figures(self, num_cases: int) -> SuiteFigures:
        """Returns the counts of the rows, and the conflicts among them."""
        asked = self.asked
        num_read = self._num_rows.total()
        num_kept = sum(self._num_rows[row.asked_id] for row in asked)
        return SuiteFigures(
            num_rows=num_read + self.num_over_limit + self.faulty.total(),
            num_cases=num_cases,
            num_prompts=len(asked),
            num_duplicates=num_kept - len(asked),
            num_conflicting=num_read - num_kept,
            num_over_limit=self.num_over_limit,
            faulty=dict(self.faulty),
            conflicts=self._conflicts(),
        )

    def _has_conflict(self, row: SuiteRow) -> bool:
        claims = (self._of_asked[row.asked_id], self._of_originals[row.original_id])
        return any(claim.conflict for claim in claims)

    def _conflicts(self) -> tuple[str, ...]:
        # What two rows of one prompt say of it, they also say of it before any attack.
        found = (
            self._of_asked[row.asked_id].conflict or self._of_originals[row.original_id].conflict
            for row in self._rows.values()
        )
        named = list(dict.fromkeys(filter(None, found)))
        rest = len(named) - _MOST_CONFLICTS
        more = (f"and {rest} more",) if rest > 0 else ()
        return (*named[:_MOST_CONFLICTS], *more)
