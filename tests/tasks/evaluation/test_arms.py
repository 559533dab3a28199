"""Arms: their names, the models that they load, and the probes of them."""

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.recipe import AblateConfig, load_recipe
from tasks.engine.requests import EngineConfig
from tasks.evaluation.answer import AnswerConfig
from tasks.evaluation.arms import ServedArm, arm_names
from tests.rows import NOON, later, run
from warehouse.catalog import connect, find_checkpoints
from warehouse.home import Home
from warehouse.lineage import CheckpointError, choose_checkpoints, in_table_order
from warehouse.shards import write_shard
from warehouse.tables import CHECKPOINTS, RUNS, Checkpoint

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
    """Checkpoints of SFT, of RL after it, of RL alone, of DPO after another SFT and of RL after
    that, and of one whose parent is lost."""
    rows = [
        checkpoint("sft", "sft"),
        checkpoint("both", "rl", "sft"),
        checkpoint("rl", "rl"),
        checkpoint("other", "sft"),
        checkpoint("third", "dpo", "other"),
        checkpoint("all", "rl", "third"),
        checkpoint("orphan", "rl", "lost"),
    ]
    write_shard(disk, CHECKPOINTS, rows)
    return disk


NAMES = {
    "sft": "SFT sft",
    "other": "SFT other",
    "rl": "RL",
    "both": "SFT+RL",
    "third": "SFT+DPO",
    "all": "SFT+DPO+RL",
    "orphan": "?+RL",
}


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (["sft", "both"], ["SFT", "SFT+RL"]),
        (["both", "sft"], ["SFT+RL", "SFT"]),
        (["both"], ["SFT+RL"]),
        (["rl", "sft"], ["RL", "SFT"]),
        (["third"], ["SFT+DPO"]),
        (["orphan", "rl"], ["?+RL", "RL"]),
    ],
)
def test_arm_is_named_by_the_trainings_that_led_to_it_in_whatever_order_it_comes(
    trained: Home, ids: list[str], names: list[str]
) -> None:
    connection = connect(trained)
    assert arm_names(connection, find_checkpoints(connection, ids)) == names


def test_any_order_of_ids_gives_the_same_names_and_the_same_order_of_tables(
    trained: Home,
) -> None:
    connection = connect(trained)

    @settings(max_examples=20)
    @given(st.permutations(list(NAMES)))
    def holds(ids: list[str]) -> None:
        chosen = choose_checkpoints(connection, ids)
        assert dict(zip(ids, arm_names(connection, chosen), strict=True)) == NAMES
        ordered = [row.checkpoint_id for row in in_table_order(connection, chosen)]
        assert ordered == ["other", "sft", "rl", "orphan", "third", "both", "all"]

    holds()


def test_evaluated_arms_are_the_same_in_any_order_of_ids(trained: Home) -> None:
    from flows.evaluate import trained_arms

    ids = ["both", "rl", "sft"]
    for name in ids:
        folder = Path(trained.folder(f"models/{name}"))
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    run = SimpleNamespace(warehouse=lambda: connect(trained), home=trained)
    base = replace(BASE, arm=replace(BASE.arm, model="model@1"))
    for order in permutations([*ids, "sft"]):
        arms = [served.arm for served in trained_arms(cast(Any, run), base, order)]
        assert [(arm.name, arm.checkpoint_id) for arm in arms] == [
            ("SFT", "sft"),
            ("RL", "rl"),
            ("SFT+RL", "both"),
        ]


def test_arm_of_a_training_that_ended_early_says_so(disk: Home) -> None:
    rows = [checkpoint("a", "sft"), replace(checkpoint("b", "rl"), status="collapsed")]
    assert arm_names(connect(disk), rows) == ["SFT", "RL (collapsed)"]


def test_checkpoints_of_one_lineage_are_told_apart_by_their_ids(disk: Home) -> None:
    rows = [checkpoint(f"{'0' * 12}{number}", "sft") for number in range(3)]
    # Each id once: a checkpoint that is named twice is one arm.
    assert arm_names(connect(disk), [rows[0], rows[0]]) == ["SFT", "SFT"]
    assert arm_names(connect(disk), rows) == [f"SFT {row.checkpoint_id}" for row in rows]


def test_checkpoint_that_began_from_another_model_than_the_base_says_from_which(
    trained: Home,
) -> None:
    connection = connect(trained)
    chosen = choose_checkpoints(connection, ["both", "orphan"])
    assert arm_names(connection, chosen, base='model@1 {"dtype": "float32"}')[0] == "SFT+RL"
    assert arm_names(connection, chosen, base="org/model@1") == ["SFT+RL of model@1", "?+RL"]


def test_checkpoint_is_given_by_the_start_of_its_id(trained: Home) -> None:
    connection = connect(trained)
    starts = ["thi", "rl", "sft", "sf"]
    chosen = [row.checkpoint_id for row in choose_checkpoints(connection, starts)]
    assert chosen == ["third", "rl", "sft", "sft"]
    assert len(in_table_order(connection, choose_checkpoints(connection, starts))) == 3
    with pytest.raises(CheckpointError, match=r"several checkpoints .* 'o': orphan, other"):
        choose_checkpoints(connection, ["o"])
    with pytest.raises(CheckpointError, match="no checkpoint has an id that starts with 'x'"):
        choose_checkpoints(connection, ["x"])


def test_latest_training_is_found_by_what_it_began_from_and_ordered_by_lineage(
    disk: Home,
) -> None:
    from flows.train import latest_training

    recipe = load_recipe("harbour", overrides=["sft.epochs=2", "rl.steps=150"])
    root = recipe.engine.version
    rows = [
        replace(checkpoint("z-sft", "sft"), parent=root),
        checkpoint("a-rl", "rl", "z-sft"),
        replace(checkpoint("elsewhere", "sft"), parent="another@1"),
    ]
    write_shard(disk, CHECKPOINTS, rows)
    trainings = [["a-rl", "z-sft"], ["elsewhere"]]
    runs = [
        run(
            ",".join(ids),
            flow="train",
            started_at=later(minute),
            resolved_recipe=recipe.model_dump_json(),
            figures=json.dumps({"checkpoints": ids}),
        )
        for minute, ids in enumerate(trainings)
    ]
    write_shard(disk, RUNS, runs)
    assert latest_training(connect(disk), recipe) == ["z-sft", "a-rl"]
    assert latest_training(connect(disk), recipe, base="another@1") == ["elsewhere"]
    assert latest_training(connect(disk), load_recipe("harbour")) == []


@pytest.mark.parametrize(
    ("arms", "sentence"),
    [
        ([{"name": "SFT", "train": ["rl"]}], "arm 'SFT' trains RL"),
        ([{"name": "rl+sft", "train": ["rl", "sft"]}], r"arm 'rl\+sft' trains SFT\+RL"),
        ([{"name": "SFT"}], "arm 'SFT' trains nothing"),
        ([{"name": "a", "budgets": [6]}, {"name": "a, 6 tokens"}], "two arms are named"),
        ([{"name": "a", "budgets": [6, 6]}], "has a budget twice"),
    ],
)
def test_arm_of_an_ablation_cannot_bear_the_name_of_another(
    arms: list[dict[str, Any]], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        AblateConfig.model_validate({"arms": arms})
    AblateConfig.model_validate({"arms": [{"name": "SFT+RL", "train": ["rl", "sft"]}]})
    with pytest.raises(ValueError, match="has a seed twice"):
        AblateConfig.model_validate({"arms": [{"name": "a"}], "seeds": [1, 1]})


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
