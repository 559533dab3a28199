"""The rows of a source by their outcome: each is counted once."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from tasks.data.sources import SourceConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Rows of a source by their outcome; all but `stored` add up to `read`."""

    read: int = 0
    kept: int = 0
    to_assign: int = 0
    """Rows whose category the judge model has yet to choose."""
    unassigned: int = 0
    """Rows for which the judge model found no category before."""
    exact_duplicates: int = 0
    near_duplicates: int = 0
    contaminated: int = 0
    conflicting: int = 0
    """Rows of prompts that rows label in different ways."""
    left_out: int = 0
    """Rows that category_map leaves out."""
    bad: Mapping[str, int] = field(default_factory=dict)
    """Rows that cannot be used, by reason."""
    stored: int = 0
    """Rows written because the prompt or its labels are new."""

    @property
    def left_behind(self) -> dict[str, int]:
        """Rows that are not used, by reason; without those whose category is still to be chosen."""
        reasons = {
            "unassigned": self.unassigned,
            "exact_duplicates": self.exact_duplicates,
            "near_duplicates": self.near_duplicates,
            "contaminated": self.contaminated,
            "conflicting": self.conflicting,
            "left_out": self.left_out,
            **self.bad,
        }
        return {reason: count for reason, count in reasons.items() if count}

    @classmethod
    def of(cls, outcomes: Counter[str], *, stored: int = 0) -> "Counts":
        """Returns the counts of rows whose outcomes are fields of this class, or else reasons."""
        names = {field.name for field in fields(cls)} - {"read", "bad", "stored"}
        return cls(
            read=outcomes.total(),
            bad={reason: count for reason, count in outcomes.items() if reason not in names},
            stored=stored,
            **{name: outcomes[name] for name in names},
        )


def usable(source: SourceConfig, counts: Counts) -> Counts:
    """Returns the counts; raises ValueError if every row is bad: columns are probably misnamed."""
    if sum(counts.bad.values()) == counts.read:
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts.bad.items())
        raise ValueError(
            f"source {source.name!r}: none of its {counts.read} rows can be used ({reasons}); "
            "check which columns it names"
        )
    return counts
