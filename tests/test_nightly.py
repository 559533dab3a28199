"""The nightly refresh: what would be made, what changed, and what is held until it is approved."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.recipe import DriftConfig, Recipe, load_recipe
from tests.rows import completion, jsonl, judgement, later, policy_text, prompt, run
from warehouse.catalog import ask, connect
from warehouse.shards import Home, write_shard
from warehouse.tables import COMPLETIONS, JUDGEMENTS, POLICIES, PROMPTS, RUNS

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
def test_judge_that_leaves_its_band_is_named_with_what_left_it(
    now: dict[str, Any], before: list[dict[str, Any]], named: str | None
) -> None:
    from flows.refresh import find_drift

    found = find_drift(now, before, BAND)
    assert (found or "").split(" ")[0] == (named or "")


@pytest.fixture
def judged(disk: Home) -> Home:
    """Two refreshes of one prompt each; the second one's judge has drifted."""
    write_shard(disk, POLICIES, [policy_text("s")])
    for number, (name, alarm) in enumerate((("early", None), ("late", "acceptance is 1.000"))):
        write_shard(disk, PROMPTS, [prompt(name, prompt_id=name)])
        write_shard(disk, COMPLETIONS, [completion(name, prompt_id=name)])
        votes = [judgement(name, index, 9.0, run_id=name) for index in range(2)]
        write_shard(disk, JUDGEMENTS, votes)
        figures = json.dumps({"drift": {"alarm": alarm}} if alarm else {})
        made = run(
            name,
            started_at=later(number),
            figures=figures,
            resolved_recipe=plain().model_dump_json(),
        )
        write_shard(disk, RUNS, [made])
    return disk


def plain(**changes: Any) -> Recipe:
    return load_recipe("harbour").model_copy(update=changes)


def verdicts(home: Home) -> dict[str, str]:
    found = connect(home).sql("SELECT completion_id, verdict FROM verdicts").fetchall()
    return dict(found)


def test_what_a_drifted_judge_said_is_held_until_it_is_approved(judged: Home) -> None:
    assert verdicts(judged) == {"early": "accepted", "late": "held"}
    funnel = {
        row["stage"]: row["left_behind"] for row in ask(connect(judged), "funnel").to_pylist()
    }
    assert funnel["accepted"] == "held for approval 1"
    approved = run("ok", flow="approve", generation_id=None, figures='{"approved": "late"}')
    write_shard(judged, RUNS, [approved])
    assert verdicts(judged) == {"early": "accepted", "late": "accepted"}


def test_drift_is_told_by_refresh(judged: Home) -> None:
    rows = ask(connect(judged), "drift").to_pylist()
    assert [
        (row["run_id"], row["num_judged"], row["acceptance"], row["alarm"]) for row in rows
    ] == [
        ("early", 1, 1.0, None),
        ("late", 1, 1.0, "acceptance is 1.000"),
    ]


@pytest.mark.slow
def test_approving_takes_the_start_of_an_id_and_refuses_what_is_not_held(judged: Home) -> None:
    from flows.nightly import approve
    from warehouse.shards import ShardError

    with pytest.raises(ShardError, match="no one held run has id 'early'; held are late"):
        approve("early", judged.root)
    assert approve("la", judged.root) == "late"
    assert verdicts(judged)["late"] == "accepted"


def test_estimate_counts_what_is_missing_and_writes_nothing(tmp_path: Path) -> None:
    from flows.estimate import estimate

    rows = [{"prompt": f"How do I use raft {number}?", "category": "boats"} for number in range(3)]
    recipe = load_recipe("harbour")
    source = recipe.sources[0].model_copy(
        update={
            "path": jsonl(tmp_path / "prompts.jsonl", rows),
            "messages": None,
            "prompt": "prompt",
            "ideal_response": None,
            "language_column": None,
        }
    )
    home = tmp_path / "home"
    found = estimate(recipe.model_copy(update={"sources": [source]}), str(home))
    assert (found.prompts, found.new_prompts, found.completions, found.judgements) == (3, 3, 6, 24)
    assert found.output_tokens is None and found.hours is None
    assert not home.exists()


def test_every_flow_is_offered_with_a_form_that_explains_itself() -> None:
    from flows.deployments import deployments

    offered = deployments(load_recipe("harbour"), "harbour")
    assert [one.name for one in offered] == [
        "refresh-nightly",
        "align",
        "train",
        "evaluate",
        "ablate",
    ]
    for one in offered:
        schema = one._parameter_openapi_schema
        assert one.description and one.concurrency_limit == 1
        assert "harbour" in schema.properties["recipe"]["enum"]
        assert all(field.get("description") for field in schema.properties.values())
    [schedule] = offered[0].schedules or []
    assert schedule.schedule.cron == "0 2 * * *"
