"""A jury on the scale model: judges one after the other, one of which is down at first."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from flows.recipe import Recipe, load_recipe
from flows.run import Refreshed
from warehouse.catalog import ask, connect, read
from warehouse.home import Home

pytestmark = pytest.mark.slow

NUM_PROMPTS = 14
SETTINGS = (
    f"sources.0.limit={NUM_PROMPTS}",
    "judge.samples=2",
    "judge.constrain=true",
    # Wrong answers enough for both judges to reject some.
    "generate.sampling.temperature=1.6",
)


def recipe(**second: Any) -> Recipe:
    """Harbour with a jury: its judge, and the same model in another precision."""
    loaded = load_recipe("harbour", overrides=SETTINGS)
    other = loaded.engine.model_copy(update={"dtype": "float32", **second})
    return loaded.model_copy(update={"judge_engines": [loaded.engine, other]})


def refresh(wanted: Recipe, home: Path) -> Refreshed:
    from flows.refresh import refresh as flow

    return flow(wanted, str(home))


@dataclass
class Juries:
    """A refresh whose second judge could not be loaded, the same one with both, and once more."""

    home: Home
    down: Refreshed
    counts_down: Mapping[str, int]
    texts_down: Mapping[str, int]
    """By verdict, the different texts of the completions that `counts_down` counts."""
    whole: Refreshed
    again: Refreshed

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        return connect(self.home)


def count(home: Path, what: str) -> dict[str, int]:
    query = (
        f"SELECT verdict, count({what}) FROM verdicts "
        "JOIN completions_all USING (completion_id) GROUP BY 1"
    )
    return dict(read(connect(Home(str(home))), query).fetchall())


@pytest.fixture(scope="module")
def juries(tmp_path_factory: pytest.TempPathFactory) -> Juries:
    home = tmp_path_factory.mktemp("jury")
    # Longer than the model can read: vLLM refuses it. What engines can hold is no part of ids.
    down = refresh(recipe(max_model_len=1_000_000), home)
    counts = [count(home, what) for what in ("*", "DISTINCT (completions_all.prompt_id, text_id)")]
    whole, again = refresh(recipe(), home), refresh(recipe(), home)
    return Juries(Home(str(home)), down, *counts, whole, again)


def test_completions_of_a_judge_that_is_down_are_unjudged_and_the_judge_is_named(
    juries: Juries,
) -> None:
    [(judge, fault)] = juries.down.figures.silent_judges.items()
    assert "float32" in judge and "no engine for" in fault
    assert set(juries.counts_down) <= {"unjudged", "rejected", "failed"}
    assert juries.counts_down["unjudged"] > 0
    assert juries.down.num_examples == 0 and juries.down.shortfall


def test_next_run_asks_the_judge_that_was_down_about_what_still_stands_alone(
    juries: Juries,
) -> None:
    assert juries.whole.figures.silent_judges == {}
    asked = {
        name: figures.num_units
        for name, figures in juries.whole.figures.stages.items()
        if name.startswith("judge ") and figures.num_units
    }
    [judge] = asked
    assert "float32" in judge and asked[judge] == juries.texts_down["unjudged"]
    verdicts = "SELECT DISTINCT verdict FROM verdicts WHERE verdict <> 'failed'"
    found = set(read(juries.connection, verdicts).fetchall())
    assert ("accepted",) in found and found <= {("accepted",), ("rejected",)}
    lowest = "SELECT min(list_min(scores)), min(len(scores)) FROM verdicts WHERE accepted"
    [(score, num_scores)] = read(juries.connection, lowest).fetchall()
    assert score >= 8 and num_scores == 4


def test_same_jury_again_loads_no_model_and_makes_nothing(juries: Juries) -> None:
    assert juries.again.models_loaded == 0
    assert juries.again.set_id == juries.whole.set_id


def test_questions_tell_the_judges_apart(juries: Juries) -> None:
    jury = ask(juries.connection, "jury").to_pylist()
    assert len({row["judge"] for row in jury}) == 2
    [asked_second] = {row["num_shared"] for row in jury}
    assert asked_second == juries.counts_down["unjudged"]
    drift = ask(juries.connection, "drift").to_pylist()
    assert [("float32" in row["judge"], row["num_judged"]) for row in drift] == [
        (False, sum(juries.texts_down.values()) - juries.texts_down.get("failed", 0)),
        (True, juries.texts_down["unjudged"]),
    ]
