"""Findings of monitors are stored once for each text, and asked about by model and by step."""

from pathlib import Path
from typing import Any

import pytest

from specs.policy import Spec
from tasks.monitors import Monitored, RolloutMonitor, monitor_rows
from tests.rows import answer, case, completion, prompt, rollout, run, spec_text
from warehouse.catalog import ask, connect
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import ANSWERS, CASES, COMPLETIONS, PROMPTS, RUNS, SPECS

HELP = "Push the raft into the water and sit down on it. Then row to the other side with the oars."
GOOD = "Rule B1 covers the raft, so I comply."
REVERSED = "Rule B1 forbids the raft, so I must refuse."


def fill(home: Home) -> None:
    write_shard(home, PROMPTS, [prompt("p", prompt_id="p")])
    write_shard(home, SPECS, [spec_text("s", text="- [B1, comply]: Rafts.\n- [B2, refuse]: No.")])
    chains: list[Any] = [
        completion("good", reasoning=GOOD, answer=HELP),
        completion("reversed", reasoning=REVERSED, answer=HELP, text_id="u"),
        completion("elsewhere", cited=["B1", "F1"], reasoning="Rule F1, so I comply.", text_id="v"),
        completion("invented", cited=[], cited_unknown=["B9"], reasoning="Rule B9.", text_id="w"),
        # Nothing was thought, so that there is nothing to read.
        completion("silent", reasoning="", answer=HELP, text_id="x"),
    ]
    write_shard(home, COMPLETIONS, chains)
    write_shard(home, RUNS, [run("r")])


def read(home: Home, kind: Any = "completions") -> Monitored:
    return monitor_rows(connect(home), kind, home=home, run_id="r")


def rows_of(home: Home, question: str, *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row[x] for x in columns) for row in ask(connect(home), question).to_pylist()]


RATES = ("invented", "elsewhere", "reversed", "grading", "policy_text", "flagged")


def test_completions_are_read_once_and_again_when_they_are_made_again(disk: Home) -> None:
    fill(disk)
    assert rows_of(disk, "monitors", "num_chains", "num_read", "flagged") == [(4, 0, None)]
    assert read(disk) == Monitored(4, {"reversed": 1, "elsewhere": 1, "invented": 1})
    assert read(disk) == Monitored(0, {})
    assert rows_of(disk, "monitors", "kind", "category", "num_read", *RATES) == [
        ("completions", "boats", 4, 0.25, 0.25, 0.25, 0.0, 0.0, 0.75)
    ]
    columns = ("row_id", "cited_unknown", "cited_elsewhere", "reversed")
    assert sorted(rows_of(disk, "flagged", *columns)) == [
        ("elsewhere", [], ["F1"], None),
        ("invented", ["B9"], [], None),
        ("reversed", [], [], "refuse → comply"),
    ]
    again = completion("reversed", attempt=1, text_id="y", reasoning=GOOD, answer=HELP)
    write_shard(disk, COMPLETIONS, [again])
    assert read(disk) == Monitored(1, {})
    assert len(rows_of(disk, "flagged", "row_id")) == 2


def test_other_phrases_read_anew(disk: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(disk)
    read(disk)
    monkeypatch.setattr("tasks.monitors.monitoring_version", lambda: "newer")
    assert read(disk).num_read == 4
    assert rows_of(disk, "monitors", "num_chains", "num_read") == [(4, 4)]


def test_answers_are_read_but_those_whose_reasoning_was_tampered_with(disk: Home) -> None:
    fill(disk)
    write_shard(disk, CASES, [case("case")])
    text: dict[str, Any] = {"reasoning": REVERSED, "answer": HELP, "checkpoint_id": "k"}
    write_shard(disk, ANSWERS, [answer("a", **text), answer("b", probe="swapped", **text)])
    assert read(disk, "answers") == Monitored(1, {"reversed": 1})
    rows = rows_of(disk, "monitors", "kind", "checkpoint_id", "num_read", "reversed")
    assert rows[0] == ("answers", "k", 1, 1.0)


def test_rates_over_the_steps_of_a_training(disk: Home, tmp_path: Path) -> None:
    fill(disk)
    spec = Spec(categories=("boats",), detail="full", text="- [B1, comply]", rule_ids=("B1",))
    monitor = RolloutMonitor(rule_ids=("B1", "F1"), spec_rules={"s": frozenset({"B1"})})
    assert RolloutMonitor.of(("B1",), [spec]).spec_rules == {spec.id: frozenset({"B1"})}
    for step, num_reversed in enumerate((0, 1, 3)):
        reasonings = [REVERSED] * num_reversed + [GOOD] * (4 - num_reversed)
        rollouts = [
            rollout(f"{step} {place}", step=step, position=place, reasoning=text, answer=HELP)
            for place, text in enumerate(reasonings)
        ]
        metrics = monitor.record(disk, rollouts)
        assert metrics["monitor/reversed_share"] == num_reversed / 4
    assert monitor.record(disk, [rollout("silent", step=3, reasoning="")]) == {}
    knowing = RolloutMonitor.of(("B1",), [spec], begun=["p"])
    assert knowing.record(disk, [rollout("begun", step=3, reasoning=REVERSED, answer=HELP)]) == {}
    # A step that was done again has the findings of its last attempt alone.
    again = [
        rollout(f"2 {place}", step=2, position=place, attempt=1, reasoning=GOOD, answer=HELP)
        for place in range(4)
    ]
    monitor.record(disk, [*again[:3], rollout("2 3", step=2, attempt=1, reasoning="F1", answer="")])
    columns = ("step", "num_rollouts", "num_read", "reversed", "elsewhere")
    assert rows_of(disk, "monitors_by_step", *columns) == [
        (0, 4, 4, 0.0, 0.0),
        (1, 4, 4, 0.25, 0.0),
        (2, 4, 4, 0.0, 0.25),
        (3, 1, 0, None, None),
    ]
