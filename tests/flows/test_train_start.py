"""The checkpoint that a recipe names as the start of fine-tuning is found, or refused in a
sentence."""

from types import SimpleNamespace
from typing import Any

import pytest

from flows.preflight import check
from flows.recipe import RecipeError, load_recipe
from tasks.training.sft import SftConfig
from tasks.training.trainer import DataError
from tests.flows.test_show import checkpoint, later
from tests.rows import run
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.lineage import CheckpointError
from warehouse.shards import write_shard
from warehouse.tables import CHECKPOINTS, RUNS


def start_of(home: Home, start: str | None) -> str | None:
    from flows.train import start_of

    recipe = SimpleNamespace(name="harbour", student_engine=None)
    context: Any = SimpleNamespace(
        warehouse=lambda: connect(home), version=lambda _: "base@1", recipe=recipe
    )
    found = start_of(context, SftConfig(start=start), "new set")
    return found.checkpoint_id if found else None


@pytest.fixture
def trained(disk: Home) -> Home:
    rows = [
        checkpoint("abc1", set_id="a"),
        checkpoint("abc2", set_id="b", created_at=later(1)),
        checkpoint("cut", set_id="c", status="stopped", created_at=later(2)),
        checkpoint("other", set_id="d", parent="elsewhere@1", created_at=later(3)),
    ]
    write_shard(disk, CHECKPOINTS, rows)
    return disk


def test_start_is_the_student_the_latest_or_the_one_that_is_named(trained: Home) -> None:
    assert start_of(trained, None) is None
    assert start_of(trained, "latest") == "abc2"
    assert start_of(trained, "abc1") == "abc1"


def test_latest_is_the_student_where_nothing_was_trained(disk: Home) -> None:
    assert start_of(disk, "latest") is None


def test_start_that_cannot_be_continued_is_told(trained: Home) -> None:
    with pytest.raises(CheckpointError, match="several checkpoints have ids that start with 'abc'"):
        start_of(trained, "abc")
    with pytest.raises(DataError, match="checkpoint cut is stopped, not completed"):
        start_of(trained, "cut")
    with pytest.raises(DataError, match="other does not descend from the student base@1"):
        start_of(trained, "other")


def test_start_that_is_not_there_is_told_before_anything_starts(disk: Home) -> None:
    write_shard(disk, RUNS, [run("refreshed", set_id="set")])
    recipe = load_recipe("harbour", overrides=["sft.start='nowhere'"])
    with pytest.raises(CheckpointError, match="no checkpoint has an id that starts with 'nowhere'"):
        check("train", recipe, disk.url)


def test_ablation_whose_arms_would_continue_from_one_another_is_refused() -> None:
    from flows.ablate import ablate

    recipe = load_recipe("harbour", overrides=["sft.start='latest'"])
    with pytest.raises(RecipeError, match=r"take sft\.start and sft\.replay out"):
        ablate.fn(recipe)
