"""A fill on the scale model's town, whose function writes, and by a model behind an endpoint."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.fill import Filled, FillOptions
from flows.recipe import Recipe, load_recipe
from tasks.data.drafts import FillConfig
from tasks.engine.requests import EngineConfig
from tests.scripted_server import MODEL, ScriptedServer, completion, scripted
from warehouse.catalog import connect, read
from warehouse.home import Home

pytestmark = pytest.mark.slow


def fill(recipe: Recipe, folder: Path, **options: Any) -> Filled:
    from flows.fill import fill as flow

    chosen = {"rules": ("B3", "T5"), "floor": 4, "out": str(folder / "fill.jsonl"), **options}
    return flow(recipe, str(folder / "home"), FillOptions(**chosen))


def lines(folder: Path) -> list[dict[str, Any]]:
    return list(map(json.loads, (folder / "fill.jsonl").read_text().splitlines()))


def test_rules_get_their_prompts_on_both_sides_and_a_second_fill_adds_nothing(
    tmp_path: Path,
) -> None:
    recipe = load_recipe("harbour", overrides=["sources.0.limit=7"])
    first = fill(recipe, tmp_path)
    assert {rule.rule_id: rule.before for rule in first.rules} == {"B3": 0, "T5": 0}
    assert all(rule.after >= 4 for rule in first.rules)
    rows = lines(tmp_path)
    assert len(rows) == first.num_written
    sides = {(row["rule"], row["side"]) for row in rows}
    assert sides == {(rule, side) for rule in ("B3", "T5") for side in ("inside", "outside")}
    labels = {row["side"]: row["ideal_response"] for row in rows if row["rule"] == "B3"}
    assert labels == {"inside": "refuse", "outside": "comply"}
    again = fill(recipe, tmp_path)
    assert (again.rules, again.num_written) == ([], 0)
    more = fill(recipe, tmp_path, floor=6)
    assert lines(tmp_path)[: len(rows)] == rows and more.num_written > 0
    assert len({row["draft"] for row in lines(tmp_path)}) == len(lines(tmp_path))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.setenv("TOWN_KEY", "sk-very-secret-0123456789")

    def answer(body: dict[str, Any], index: int) -> Any:
        if index % 3 == 0:
            return completion("<think>No.</think>I'm sorry, I can't help with that.")
        return completion(f"<think>Who asks?</think>Where do I find number {index}?")

    with scripted(answer) as running:
        yield running


def test_model_that_declines_some_is_asked_for_others(
    server: ScriptedServer, tmp_path: Path
) -> None:
    asked = {"url": server.url, "key_variable": "TOWN_KEY"}
    engine = EngineConfig.model_validate({"model": MODEL, "endpoint": asked})
    recipe = load_recipe("harbour", overrides=["sources.0.limit=7"]).model_copy(
        update={"engine": engine, "fill": FillConfig()}
    )
    filled = fill(recipe, tmp_path)
    assert filled.statuses["refused"] > 0 and filled.statuses["ok"] >= 8
    assert all(rule.after == 4 for rule in filled.rules)
    assert {row["model"].split("@")[0] for row in lines(tmp_path)} == {MODEL}
    warehouse = connect(Home(str(tmp_path / "home")))
    query = "SELECT output_tokens FROM usage WHERE table_name = 'drafts'"
    [(tokens,)] = read(warehouse, query).fetchall()
    assert tokens > 0
