"""Recommendations of a calibration, chosen by hand."""

from typing import Any

from warehouse.reports.recommend import recommend


def row(grader: str, **changes: Any) -> dict[str, Any]:
    """A row of question `calibration`."""
    return {
        **{"grader": grader, "criterion": None, "gold": "oracle", "threshold": 7, "k": 1},
        **{"precision": 0.96, "low": 0.9, "high": 0.99, "recall": 0.5, "num_judges": 1},
        **{"tokens": 40.0, "tokens_racing": 30.0},
        **changes,
    }


def test_cheapest_that_reaches_the_precision_is_recommended() -> None:
    rows = [
        row("weak", precision=0.94, tokens_racing=1.0, recall=1.0),
        row("criterion alone", criterion="compliance", tokens_racing=1.0),
        row("dear", recall=1.0, tokens_racing=31.0),
        row("strict", recall=0.4),
        row("a + b", num_judges=2, k=2),
    ]
    [best] = recommend(rows, 0.95)
    # Of equal tokens, the fewest grades count, and then the highest recall.
    assert best.judges == "strict"
    [best] = recommend([*rows, row("open", recall=0.45, threshold=6)], 0.95)
    assert (best.judges, best.reaches) == ("open", True)
    assert best.in_words == (
        "against oracle, cheapest that reaches precision 0.95: open, 1 grade, threshold 6, with "
        "precision 0.960 [0.90–0.99], recall 0.450, 30.0 output tokens an answer in a race, 40.0 "
        "with all grades; the interval starts below 0.95, so more answers would be surer"
    )


def test_if_none_reaches_it_the_nearest_is_told() -> None:
    rows = [row("near", precision=0.9, k=2, num_judges=2), row("far", precision=0.8)]
    [best] = recommend(rows, 0.95)
    assert best.in_words.startswith(
        "against oracle, none reaches precision 0.95; nearest: near, 2 grades of each, threshold 7"
    )


def test_each_gold_has_a_recommendation_of_its_own() -> None:
    rows = [row("judge"), row("judge", gold="people", tokens=None, tokens_racing=None)]
    ours, theirs = recommend(rows, 0.9)
    assert (ours.gold, theirs.gold) == ("oracle", "people")
    assert theirs.in_words.endswith("its cost unknown")
    assert recommend([row("judge", precision=None)], 0.9) == []
