"""A judge that leaves the band of earlier refreshes raises an alarm."""

from typing import Any

import pytest

from tasks.data.drift import DriftConfig, Judged, find_alarm, watch

BAND = DriftConfig(acceptance=0.1, spread=2.0)


def night(acceptance: float, spread: float | None = 1.0) -> dict[str, Any]:
    return {"acceptance": acceptance, "spread": spread, "num_judged": 100}


@pytest.mark.parametrize(
    ("now", "before", "named"),
    [
        (night(0.55), [night(0.5), night(0.52)], None),
        (night(0.9), [night(0.5), night(0.52)], "acceptance"),
        (night(0.2), [night(0.5)], "acceptance"),
        (night(0.5, 4.0), [night(0.5)], "spread"),
        (night(0.9), [], None),
        (night(0.5, None), [night(0.5, None)], None),
    ],
)
def test_alarm_names_the_measure_that_left_its_band(
    now: dict[str, Any], before: list[dict[str, Any]], named: str | None
) -> None:
    alarm = find_alarm(Judged.of([now]), before, BAND)
    assert (alarm or "").split(" ")[0] == (named or "")


def test_refreshes_are_weighted_by_the_texts_that_they_judged() -> None:
    nights = [night(0.5, None), {**night(0.9, 2.0), "num_judged": 300}]
    assert Judged.of(nights) == Judged(num_judged=400, acceptance=0.8, spread=2.0)
    assert Judged.of([]) == Judged(num_judged=0, acceptance=None, spread=None)


def row(run_id: str, acceptance: float, **changes: Any) -> dict[str, Any]:
    """A row of question `drift`."""
    return {
        "run_id": run_id,
        "judge": None,
        "jury": None,
        "watched": True,
        "alarm": None,
        **night(acceptance),
        **changes,
    }


def test_refreshes_that_were_not_watched_are_watched_together() -> None:
    rows = [
        row("first", 0.5),
        row("killed", 0.5, watched=False),
        row("newest", 0.9, watched=False),
    ]
    drift = watch(rows, BAND)
    assert drift.runs == ("killed", "newest")
    assert drift.alarm and drift.alarm.startswith("acceptance is 0.700 over 200 texts")


def test_refreshes_that_were_held_or_too_small_are_not_compared_with() -> None:
    newest = row("newest", 0.9, watched=False)
    held = row("held", 0.5, alarm="spread is 5.0")
    small = row("small", 0.5, num_judged=BAND.min_rows - 1)
    assert watch([held, small, newest], BAND).alarm is None
    assert watch([row("usual", 0.5), newest], BAND).alarm is not None
    assert watch([row("usual", 0.5), {**newest, "num_judged": 49}], BAND).alarm is None


def test_each_judge_of_a_jury_is_compared_with_itself() -> None:
    usual = [row("usual", 0.5, judge="a@1"), row("usual", 0.9, judge="b@1")]
    newest = [row("newest", 0.5, judge="a@1", watched=False)]
    newest += [row("newest", 0.5, judge="b@1", watched=False)]
    drift = watch([*usual, *newest], BAND)
    assert drift.runs == ("newest",)
    assert drift.alarm and drift.alarm.startswith("judge b@1: acceptance is 0.500")
    assert watch([*usual, newest[0]], BAND).alarm is None


def test_judge_is_compared_with_refreshes_of_the_same_jury_in_the_same_order() -> None:
    usual = row("usual", 0.5, judge="b@1", jury="a then b")
    newest = row("newest", 0.9, judge="b@1", jury="a then b", watched=False)
    assert watch([usual, newest], BAND).alarm is not None
    for jury in ("b then a", "c then a then b", "a then b, 1 silent"):
        assert watch([usual, {**newest, "jury": jury}], BAND).alarm is None
