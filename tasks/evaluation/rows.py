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
    """The rows of a source, which are read twice: what a row says counts only together with what
    all others say of the same prompt."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.faulty: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._asked: dict[str, SuiteRow] = {}
        self._of_asked: dict[str, _Claims] = {}
        self._of_originals: dict[str, _Claims] = {}
        self._conflicts: dict[str, None] = {}

    def note(self, row: SuiteRow) -> None:
        """Takes in what a row says, in the first reading."""
        place = row.prompt.place
        self._of_asked.setdefault(row.asked_id, _Claims()).add(row.says, place)
        self._of_originals.setdefault(row.original_id, _Claims()).add(row.of_original, place)

    def add(self, row: SuiteRow) -> None:
        """Takes in a row, in the second reading."""
        if conflict := self._conflict(row):
            self._conflicts.setdefault(conflict)
            self._outcomes["conflicting"] += 1
        elif row.asked_id in self._asked:
            self._outcomes["duplicates"] += 1
        elif self.limit is not None and len(self._asked) >= self.limit:
            self._outcomes["over_limit"] += 1
        else:
            self._asked[row.asked_id] = row

    @property
    def asked(self) -> list[SuiteRow]:
        """The rows that are asked, in the order of the source, each prompt once."""
        return list(self._asked.values())

    def figures(self, num_cases: int) -> SuiteFigures:
        """Returns the counts of the rows, and the conflicts among them."""
        conflicts = list(self._conflicts)
        rest = len(conflicts) - _MOST_CONFLICTS
        more = (f"and {rest} more",) if rest > 0 else ()
        return SuiteFigures(
            num_rows=len(self._asked) + self._outcomes.total() + self.faulty.total(),
            num_cases=num_cases,
            num_prompts=len(self._asked),
            num_duplicates=self._outcomes["duplicates"],
            num_conflicting=self._outcomes["conflicting"],
            num_over_limit=self._outcomes["over_limit"],
            faulty=dict(self.faulty),
            conflicts=(*conflicts[:_MOST_CONFLICTS], *more),
        )

    def _conflict(self, row: SuiteRow) -> str | None:
        """Returns the conflict on what a row asks, or on its chat before the attack."""
        # A file that grows while it is read may have rows that were not there before.
        none = _Claims()
        # What two rows of one prompt say of it, they also say of it before any attack.
        return (
            self._of_asked.get(row.asked_id, none).conflict
            or self._of_originals.get(row.original_id, none).conflict
        )
