"""A jury behind endpoints: one that stays away leaves its completions to the next refresh."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from flows import steps
from flows.recipe import Recipe
from flows.run import Refreshed
from tests.flows.test_traces import recipe
from tests.rows import jsonl
from tests.scripted_server import ScriptedServer, completion, listing, refusal, scripted
from warehouse.catalog import connect, read
from warehouse.home import Home

pytestmark = pytest.mark.slow

UP, AWAY = "town-1", "town-2"
ROWS = [
    {"prompt": f"May I row {number}?", "response": "<think>Rule B1.</think>No."}
    for number in range(6)
]


def score(body: dict[str, Any], index: int) -> Response:
    return completion(*["Fine.\nScore: 9"] * body.get("n", 1), model=body["model"])


def score_of_one(body: dict[str, Any], index: int) -> Response:
    return refusal(503, "restarting") if body["model"] == AWAY else score(body, index)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted(score_of_one) as running:
        running.models = lambda: listing(UP, AWAY)
        yield running


def jury(folder: Path, server: ScriptedServer) -> Recipe:
    """Traces that two endpoints judge; the first is away."""
    data = recipe(folder, ROWS).model_dump()
    endpoint = {"url": server.url, "retries": 0}
    data["judge_engines"] = [
        {"model": name, "reasons": False, "endpoint": endpoint} for name in (AWAY, UP)
    ]
    return Recipe.model_validate(data)


def refresh(wanted: Recipe, home: Path) -> tuple[Refreshed, dict[str, int]]:
    from flows.refresh import refresh as flow

    done = flow(wanted, str(home))
    query = "SELECT verdict, count(*) FROM verdicts GROUP BY 1"
    return done, dict(read(connect(Home(str(home))), query).fetchall())


def test_judge_that_stays_away_is_named_and_the_others_are_asked_all_the_same(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(steps.RETRIED, "retry_delay_seconds", 0)
    wanted, home = jury(tmp_path, server), tmp_path / "home"

    done, verdicts = refresh(wanted, home)
    [(judge, fault)] = done.figures.silent_judges.items()
    assert judge.startswith(AWAY) and "answers 503" in fault
    assert verdicts == {"unjudged": len(ROWS)}

    server.reset(score)
    done, verdicts = refresh(wanted, home)
    assert verdicts == {"accepted": len(ROWS)}
    assert {body["model"] for body in server.bodies} == {AWAY}, "the other is not asked again"


SUITE = """name = "kept"
answer = "response"
gold = "right"

[source]
path = "kept.jsonl"
prompt = "prompt"
categories = ["boats"]
"""


def score_by_judge(body: dict[str, Any], index: int) -> Response:
    """The first judge finds everything good, the second what asks about an even number."""
    is_even = any(f"row {number}?" in str(body["messages"]) for number in (0, 2, 4))
    given = 9 if body["model"] == AWAY or is_even else 2
    texts = [f"Fine.\nScore: {given}"] * body.get("n", 1)
    return completion(*texts, model=body["model"])


def test_calibration_holds_each_judge_of_a_jury_and_both_together(
    server: ScriptedServer, tmp_path: Path
) -> None:
    from flows.calibrate import calibrate

    server.reset(score_by_judge)
    rows = [{**row, "right": number % 2 == 0} for number, row in enumerate(ROWS)]
    jsonl(tmp_path / "kept.jsonl", rows)
    (tmp_path / "kept.toml").write_text(SUITE)
    data = jury(tmp_path, server).model_dump()
    data["calibrate"] = {
        "suites": [str(tmp_path / "kept.toml")],
        "graders": [
            {"name": "judge", "rubric": "policy"},
            {"name": "people", "function": "gold"},
        ],
    }
    done = calibrate(Recipe.model_validate(data), str(tmp_path / "home"))
    found = {
        row["grader"]: (row["precision"], row["recall"], row["num_answers"])
        for row in done.table
        if row["threshold"] == 8
    }
    lenient, strict = f"judge by {AWAY}", f"judge by {UP}"
    assert found == {
        lenient: (0.5, 1.0, 6),
        strict: (1.0, 1.0, 6),
        f"{strict} + {lenient}": (1.0, 1.0, 6),
    }
    [best] = done.recommended
    assert (best.judges, best.reaches, best.num_judges) == (strict, True, 1)
