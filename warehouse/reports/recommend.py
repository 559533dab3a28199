"""The cheapest judges, number of grades and threshold that reach a precision, of a calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from warehouse.characters import one_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommended:
    """A row of question `calibration` that is recommended for a precision."""

    target: float
    """Precision that was asked for, from 0 to 1."""
    gold: str
    """Gold grader that it is held against."""
    reaches: bool
    """False if none reaches the precision; then it is the row that comes nearest."""
    judges: str
    """Name of the judge; of a jury, the names in the order in which a race asks them."""
    num_judges: int
    """Judges of the jury; 1 for a lone judge."""
    k: int
    """Grades of each judge."""
    threshold: int
    """Lowest accepted grade, from 1 to 10."""
    precision: float
    """Share of what is accepted that is right."""
    low: float
    """Lower end of the precision's interval."""
    high: float
    """Upper end of the precision's interval."""
    recall: float
    """Share of what is right that is accepted."""
    tokens: float | None
    """Output tokens an answer, all grades asked; null if the server told no usage."""
    tokens_racing: float | None
    """Output tokens an answer in a race; null if the server told no usage."""

    @property
    def in_words(self) -> str:
        """The recommendation as one sentence."""
        which = "cheapest that reaches" if self.reaches else "none reaches"
        start = f"against {one_line(self.gold)}, {which} precision {self.target:g}"
        each = " of each" if self.num_judges > 1 else ""
        grades = "1 grade" if self.k == 1 else f"{self.k} grades"
        nearest = ": " if self.reaches else "; nearest: "
        doubt = ""
        if self.reaches and self.low < self.target:
            doubt = f"; the interval starts below {self.target:g}, so more answers would be surer"
        return (
            f"{start}{nearest}{one_line(self.judges)}, {grades}{each}, threshold "
            f"{self.threshold}, with precision {self.precision:.3f} "
            f"[{self.low:.2f}–{self.high:.2f}], recall {self.recall:.3f}, {self._cost}{doubt}"
        )

    @property
    def _cost(self) -> str:
        if self.tokens is None or self.tokens_racing is None:
            return "its cost unknown"
        return (
            f"{self.tokens_racing:.1f} output tokens an answer in a race, {self.tokens:.1f} with "
            "all grades"
        )


def recommend(table: Sequence[Mapping[str, Any]], target: float) -> list[Recommended]:
    """Returns for each gold grader the cheapest row that reaches a precision, else the nearest.

    Of equal cost, the highest recall counts. `table` has the rows of question `calibration`.
    """
    # One criterion alone is not what the filter goes by.
    rows = [row for row in table if row["criterion"] is None and row["precision"] is not None]
    # Without a right answer there is nothing to recall.
    rows = [row for row in rows if row["recall"] is not None]
    found = []
    for gold in dict.fromkeys(row["gold"] for row in rows):
        ours = [row for row in rows if row["gold"] == gold]
        reaching = [row for row in ours if row["precision"] >= target]
        if reaching:
            best = min(reaching, key=lambda row: (_cost(row), -row["recall"], -row["low"]))
        else:
            best = min(ours, key=lambda row: (-row["precision"], _cost(row), -row["recall"]))
        found.append(_of(best, target))
    return found


def _cost(row: Mapping[str, Any]) -> tuple[float, int]:
    """Returns what a row costs, in tokens and then in grades; unknown tokens come last."""
    tokens = row["tokens_racing"]
    return (float("inf") if tokens is None else tokens), row["k"] * row["num_judges"]


def _of(row: Mapping[str, Any], target: float) -> Recommended:
    names = ("gold", "num_judges", "k", "threshold", "precision", "low", "high", "recall")
    return Recommended(
        target=target,
        reaches=row["precision"] >= target,
        judges=row["grader"],
        tokens=row["tokens"],
        tokens_racing=row["tokens_racing"],
        **{name: row[name] for name in names},
    )
