"""The checkpoint that fine-tuning continues from, and the set that a checkpoint has learned."""

from typing import Any

import pytest

from tests.flows.test_show import checkpoint, later
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.lineage import (
    CheckpointError,
    choose_checkpoints,
    in_table_order,
    latest_fine_tuned,
    learned_set,
    lineage_of,
    students,
)
from warehouse.shards import write_shard
from warehouse.tables import CHECKPOINTS


def latest(home: Home, set_id: str, *, base: str = "base@1") -> str | None:
    found = latest_fine_tuned(connect(home), "harbour", base=base, set_id=set_id)
    return found.checkpoint_id if found else None


def fill(home: Home, *rows: dict[str, Any]) -> None:
    """Writes checkpoints, each later than the one before."""
    checkpoints = [
        checkpoint(row["id"], created_at=later(place), **{k: row[k] for k in row if k != "id"})
        for place, row in enumerate(rows)
    ]
    write_shard(home, CHECKPOINTS, checkpoints)


def test_a_warehouse_without_a_training_has_nothing_to_continue_from(disk: Home) -> None:
    assert latest(disk, "a") is None


def test_the_same_training_finds_the_same_start_again(disk: Home) -> None:
    fill(disk, {"id": "first", "set_id": "a"})
    assert (latest(disk, "a"), latest(disk, "b")) == (None, "first")
    second = checkpoint("second", set_id="b", parent_id="first", created_at=later(5))
    write_shard(disk, CHECKPOINTS, [second])
    assert (latest(disk, "b"), latest(disk, "c")) == ("first", "second")


def test_a_policy_that_is_taken_back_continues_from_the_latest_training(disk: Home) -> None:
    fill(disk, {"id": "first", "set_id": "a"}, {"id": "second", "set_id": "b"})
    assert latest(disk, "a") == "second"


@pytest.mark.parametrize(
    "other",
    [
        {"recipe": "another"},
        {"status": "stopped"},
        {"status": "collapsed"},
        {"stage": "rl", "set_id": None},
        {"parent": "elsewhere@1"},
        {"parent_id": "lost"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_only_a_whole_fine_tuning_of_the_recipe_and_its_student_is_continued(
    disk: Home, other: dict[str, Any]
) -> None:
    fill(disk, {"id": "first", "set_id": "a"}, {"id": "second", "set_id": "b", **other})
    assert latest(disk, "c") == "first"


def test_settings_that_the_student_is_served_with_do_not_hide_its_checkpoints(disk: Home) -> None:
    fill(disk, {"id": "first", "set_id": "a"})
    assert latest(disk, "b", base='base@1 {"dtype": "bfloat16"}') == "first"


def test_what_was_learned_is_the_set_of_the_nearest_fine_tuning(disk: Home) -> None:
    fill(
        disk,
        {"id": "sft", "set_id": "a"},
        {"id": "more sft", "set_id": "b", "parent_id": "sft"},
        {"id": "dpo", "stage": "dpo", "set_id": "pairs", "parent_id": "more sft"},
        {"id": "rl", "stage": "rl", "set_id": None, "parent_id": "dpo"},
        {"id": "rl of base", "stage": "rl", "set_id": None},
    )
    connection = connect(disk)
    found = {
        name: learned_set(connection, checkpoint(name, **changes))
        for name, changes in {
            "sft": {"set_id": "a"},
            "rl": {"stage": "rl", "parent_id": "dpo"},
            "rl of base": {"stage": "rl"},
        }.items()
    }
    assert found == {"sft": "a", "rl": "b", "rl of base": None}


def test_lineage_names_a_midtraining_before_what_follows_it(disk: Home) -> None:
    fill(
        disk,
        {"id": "sft", "set_id": "a"},
        {"id": "read", "stage": "midtrain", "set_id": None},
        {"id": "taught", "set_id": "a", "parent_id": "read"},
    )
    connection = connect(disk)
    rows = [checkpoint("taught", parent_id="read"), checkpoint("sft")]
    rows.append(checkpoint("read", stage="midtrain"))
    names = [lineage_of(connection, one).name for one in in_table_order(connection, rows)]
    assert names == ["midtrain", "SFT", "midtrain+SFT"]


def test_a_reward_model_is_not_taken_for_a_student(disk: Home) -> None:
    fill(disk, {"id": "aa1"}, {"id": "bb2", "stage": "reward_model"}, {"id": "cc3", "stage": "rl"})
    connection = connect(disk)
    chosen = choose_checkpoints(connection, ["aa", "cc"])
    assert [checkpoint.checkpoint_id for checkpoint in students(chosen)] == ["aa1", "cc3"]
    with pytest.raises(CheckpointError) as caught:
        choose_checkpoints(connection, ["aa", "bb"])
    assert str(caught.value) == (
        "checkpoint bb2 is a reward model, which answers no prompt; give the id of a checkpoint of "
        "midtrain, sft, dpo, rl"
    )
