"""Drift of the judge: the verdicts of a refresh, compared with those of the refreshes before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from tasks import Config


class DriftConfig(Config):
    """Bands in which a judge must stay from refresh to refresh."""

    refreshes: int = Field(7, gt=0)
    """Earlier refreshes that the newest one is compared with."""
    acceptance: float = Field(0.1, gt=0, le=1)
    """Largest distance of the share of accepted texts from the mean of those refreshes."""
    spread: float = Field(2.0, gt=0, le=10)
    """Largest distance of the mean spread from theirs; the spread is the difference between the
    highest and the lowest score of one text."""
    min_rows: int = Field(50, gt=0)
    """Texts that must be newly judged before drift is tested; completions that share one count
    once."""


@dataclass(frozen=True, slots=True)
class Drift:
    """The outcome of a comparison with earlier refreshes."""

    runs: tuple[str, ...]
    """Ids of the refreshes that were compared with earlier ones."""
    alarm: str | None
    """The reason that their judgements are held, in one sentence; None if they are not."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Texts that one or several refreshes judged."""

    num_judged: int
    acceptance: float | None
    """Share of the texts that was accepted, from 0 to 1."""
    spread: float | None
    """Mean difference between the highest and the lowest score of a text."""

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> "Judged":
        """Returns several rows of question `drift` as one, weighted by texts."""

        def mean(name: str) -> float | None:
            valued = [row for row in rows if row[name] is not None]
            weight = sum(row["num_judged"] for row in valued)
            return sum(row[name] * row["num_judged"] for row in valued) / weight if weight else None

        num_judged = sum(row["num_judged"] for row in rows)
        return cls(num_judged, mean("acceptance"), mean("spread"))


def watch(rows: Sequence[Mapping[str, Any]], config: DriftConfig) -> Drift:
    """Compares the refreshes of a recipe that were not watched yet with those before them, judge by
    judge.

    `rows` are the recipe's rows of question `drift`, the oldest first. A refresh that was killed
    before its judgements were watched is watched together with the next one.
    """
    runs = tuple(dict.fromkeys(row["run_id"] for row in rows if not row["watched"]))
    alarms = []
    for judge in dict.fromkeys(row["judge"] for row in rows):
        alarm = _watch_judge([row for row in rows if row["judge"] == judge], config)
        if alarm:
            alarms.append(f"judge {judge}: {alarm}" if judge else alarm)
    return Drift(runs, "; ".join(alarms) or None)


def _watch_judge(rows: Sequence[Mapping[str, Any]], config: DriftConfig) -> str | None:
    """Returns why what one judge gave in the refreshes not watched yet is held, if it is."""
    unwatched = [row for row in rows if not row["watched"]]
    # In another jury, or at another place in it, a judge is asked about other texts.
    juries = {row["jury"] for row in unwatched}
    before = [
        row
        for row in rows
        if row["watched"]
        and row["alarm"] is None
        and row["num_judged"] >= config.min_rows
        and {row["jury"]} == juries
    ]
    newest = Judged.of(unwatched)
    if newest.num_judged < config.min_rows:
        return None
    return find_alarm(newest, before[-config.refreshes :], config)


def find_alarm(
    newest: Judged, before: Sequence[Mapping[str, Any]], config: DriftConfig
) -> str | None:
    """Returns how a refresh differs from those before it, in one sentence; None if it does not."""
    for name, value, band in (
        ("acceptance", newest.acceptance, config.acceptance),
        ("spread", newest.spread, config.spread),
    ):
        usual = [row[name] for row in before if row[name] is not None]
        if not usual or value is None:
            continue
        mean = sum(usual) / len(usual)
        if abs(value - mean) > band:
            return (
                f"{name} is {value:.3f} over {newest.num_judged} texts, {mean:.3f} in "
                f"the {len(usual)} refreshes before; more than {band:g} apart"
            )
    return None
