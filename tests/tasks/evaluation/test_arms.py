"""Arms: their names, the models that they load, and the probes of them."""

from pathlib import Path
from typing import Any

import pytest

from tasks.engine.requests import EngineConfig
from tasks.evaluation.answer import AnswerConfig
from tasks.evaluation.arms import ServedArm, arm_names
from tests.rows import NOON
from warehouse.catalog import connect, find_checkpoints
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import CHECKPOINTS, Checkpoint

BASE = ServedArm.of_base(
    EngineConfig(model="org/model", revision="1"),
    AnswerConfig(samples=4, budget=8),
    name="base",
    model="org/model@1",
)


def checkpoint(name: str, stage: str, parent_id: str | None = None) -> Checkpoint:
    row: dict[str, Any] = {
        "checkpoint_id": name,
        "revision": 0,
        "stage": stage,
        "status": "completed",
        "reason": None,
        "model": f"{name}@1",
        "parent": "model@1",
        "parent_id": parent_id,
        "set_id": None,
        "data_fingerprint": "d",
        "num_rows": 1,
        "num_steps": 1,
        "recipe": "harbour",
        "run_id": "r",
        "git_commit": None,
        "seconds": 1.0,
        "created_at": NOON,
        "path": f"models/{name}",
        "config": "{}",
        "metrics": "{}",
    }
    return Checkpoint(**row)


@pytest.fixture
def trained(disk: Home) -> Home:
    """Checkpoints of SFT, of RL after it, of RL alone, and of DPO after another SFT."""
    rows = [
        checkpoint("sft", "sft"),
        checkpoint("both", "rl", "sft"),
        checkpoint("rl", "rl"),
        checkpoint("other", "sft"),
        checkpoint("third", "dpo", "other"),
    ]
    write_shard(disk, CHECKPOINTS, rows)
    return disk


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (["sft", "both"], ["SFT", "SFT+RL"]),
        (["both", "sft"], ["SFT+RL", "SFT"]),
        (["both"], ["SFT+RL"]),
        (["rl", "sft"], ["RL", "SFT"]),
        (["third"], ["SFT+DPO"]),
    ],
)
def test_arm_is_named_by_the_trainings_that_led_to_it_in_whatever_order_it_comes(
    trained: Home, ids: list[str], names: list[str]
) -> None:
    connection = connect(trained)
    assert arm_names(connection, find_checkpoints(connection, ids)) == names


def test_checkpoints_of_one_lineage_are_told_apart_by_their_ids(trained: Home) -> None:
    connection = connect(trained)
    checkpoints = find_checkpoints(connection, ["sft", "other", "both"])
    assert arm_names(connection, checkpoints) == ["SFT sft", "SFT other", "SFT+RL"]


def test_lineage_ends_where_a_parent_is_no_longer_stored(disk: Home) -> None:
    late = checkpoint("late", "rl", "lost")
    assert arm_names(connect(disk), [late]) == ["RL"]


def test_checkpoint_is_asked_and_served_as_the_model_it_descends_from(trained: Home) -> None:
    folder = Path(trained.folder("models/sft"))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    [row] = find_checkpoints(connect(trained), ["sft"])
    served = ServedArm.of_checkpoint(BASE, row, trained, name="SFT", seed=7)
    assert (served.arm.model, served.arm.checkpoint_id, served.arm.seed) == ("sft@1", "sft", 7)
    assert served.arm.config == BASE.arm.config
    assert served.engine == BASE.engine.with_model(str(folder))


@pytest.mark.parametrize(
    ("context", "probes"),
    [
        ("none", ["kept", "truncated", "swapped"]),
        ("category", ["kept", "truncated", "swapped", "edited"]),
    ],
)
def test_rules_are_edited_only_for_an_arm_that_is_shown_them(
    context: Any, probes: list[str]
) -> None:
    config = AnswerConfig(samples=4, context=context)
    served = ServedArm.of_base(BASE.engine, config, name="it", model="m@1")
    assert [probe.arm.probe for probe in served.probes] == probes
    assert {probe.arm.config.samples for probe in served.probes} == {1}


def test_limit_of_reasoning_makes_an_arm_of_its_own_name() -> None:
    limited = BASE.within(6)
    assert (limited.arm.name, limited.arm.config.budget) == ("base, 6 tokens", 6)
    assert limited.engine == BASE.engine
