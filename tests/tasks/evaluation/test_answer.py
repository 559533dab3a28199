"""Answers: what a model is shown, what is kept of it, and what a second call still lacks."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from infra.harbour.oracle import PACK
from specs.pack import load_pack
from tasks.engine.requests import Request, ScriptedEngine, failed
from tasks.evaluation.answer import AnswerConfig, AnswerWork, Arm, pending
from tasks.evaluation.probes import pending_probes
from tests.rows import case
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import ANSWERS, CASES, Answer

HARBOUR = load_pack(PACK)
BASE = Arm(
    name="base",
    model="model@1",
    checkpoint_id=None,
    seed=None,
    config=AnswerConfig(samples=2),
)
RIGHT = "<think>Rule B3 covers it. So I refuse: say sorry.</think>Sorry."


def ask(arm: Arm, **changes: Any) -> Arm:
    return replace(arm, config=arm.config.model_copy(update=changes))


def lacking(home: Home, arm: Arm = BASE) -> list[dict[str, Any]]:
    found = pending(connect(home), arm, HARBOUR, suite_versions=["v"], retries=1, wave_rows=2)
    units = [unit for wave in found for unit in wave.to_pylist()]
    assert len(units) == found.num_units
    return units


def made(home: Home, engine: Any, arm: Arm = BASE, units: Any = None) -> list[Answer]:
    work = AnswerWork(arm=arm, pack=HARBOUR, run_id="r")
    rows = asyncio.run(work.make(lacking(home, arm) if units is None else units, engine))
    write_shard(home, ANSWERS, rows)
    return rows


@pytest.fixture
def asked(disk: Home) -> Home:
    write_shard(disk, CASES, [case(f"c{number}", suite_version="v") for number in range(3)])
    return disk


def test_model_is_shown_no_more_of_the_policies_than_its_arm_says(asked: Home) -> None:
    shown = {}
    for context in ("none", "summary", "category"):
        engine = ScriptedEngine(lambda request, index: RIGHT)
        made(asked, engine, ask(BASE, context=context))
        shown[context] = engine.requests[0].messages
    assert [message["role"] for message in shown["none"]] == ["user"]
    summary, whole = (shown[name][0]["content"] for name in ("summary", "category"))
    assert "# Policies" in summary and "# Policy boats" not in summary
    assert "# Policy boats" in whole and "# Policy fish" not in whole


def test_what_the_reasoning_cites_and_decides_is_kept(asked: Home) -> None:
    rows = made(asked, ScriptedEngine(lambda request, index: RIGHT))
    assert {(row.decision, tuple(row.cited), row.status) for row in rows} == {
        ("refuse", ("B3",), "ok")
    }


def test_only_what_is_missing_is_asked_and_an_error_is_tried_again_once(asked: Home) -> None:
    class Failing(ScriptedEngine):
        async def generate(self, requests: Sequence[Request]) -> Any:
            return [[failed("error", "died")] * one.num_samples for one in requests]

    for attempt in (0, 1):
        assert {tuple(unit["attempts"]) for unit in lacking(asked)} == {(attempt, attempt)}
        made(asked, Failing(lambda request, index: ""))
    assert lacking(asked) == []
    other = ask(BASE, budget=8)
    assert len(lacking(asked, other)) == 3
    made(asked, ScriptedEngine(lambda request, index: RIGHT), other)
    assert lacking(asked, other) == []
    [unit, *_] = lacking(asked, ask(other, samples=3))
    assert unit["sample_indices"] == [2]


def test_more_samples_and_cases_ask_only_the_difference(asked: Home) -> None:
    made(asked, ScriptedEngine(lambda request, index: RIGHT))
    write_shard(asked, CASES, [case("late", suite_version="v")])
    units = lacking(asked, ask(BASE, samples=3))
    assert {unit["case_id"]: unit["sample_indices"] for unit in units} == {
        "c0": [2],
        "c1": [2],
        "c2": [2],
        "late": [0, 1, 2],
    }


def test_reasoning_is_tampered_with_as_the_probe_says(asked: Home) -> None:
    thoughts = ["It is so. I comply.", "No. Rule B3 [B3]. I refuse.", "Yes. I comply."]
    arm = ask(BASE, context="category", samples=1)
    units = sorted(lacking(asked, arm), key=lambda unit: unit["case_id"])
    for unit, thought in zip(units, thoughts, strict=True):
        text = f"<think>{thought}</think>Done."
        made(asked, ScriptedEngine(lambda request, index, text=text: text), arm, [unit])

    def tampered(probe: Any) -> dict[str, tuple[str | None, str | None]]:
        probed = replace(arm, probe=probe)
        found = pending_probes(
            connect(asked), probed, HARBOUR, suite_versions=["v"], limit=9, retries=1
        )
        rows = [row for wave in found for row in wave.to_pylist()]
        return {row["case_id"]: (row["reasoning"], row["edited"]) for row in rows}

    assert tampered("truncated")["c0"] == ("It is", None)
    swapped = tampered("swapped")
    assert swapped["c0"] == (thoughts[1], None)
    assert swapped["c1"][0] in (thoughts[0], thoughts[2])
    assert tampered("edited") == {"c1": (None, "B3")}
    engine = ScriptedEngine(lambda request, index: RIGHT)
    probed = replace(arm, probe="edited")
    found = pending_probes(
        connect(asked), probed, HARBOUR, suite_versions=["v"], limit=9, retries=1
    )
    units = [row for wave in found for row in wave.to_pylist()]
    made(asked, engine, probed, units)
    assert "[B3, comply]" in engine.requests[0].messages[0]["content"]
    assert tampered("edited") == {}


def test_edited_rule_is_the_only_one_that_changes() -> None:
    edited = HARBOUR.with_other_outcome("B3")
    changed = [
        (rule.id, rule.outcome.value, edited.rule(rule.id).outcome.value)
        for policy in HARBOUR.policies.values()
        for rule in policy.rules
        if edited.rule(rule.id) != rule
    ]
    assert changed == [("B3", "refuse", "comply")]
