"""An edit of a pack tells which rows and checkpoints it makes stale, and what they cost again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.__main__ import app
from flows.policy_diff import diff_packs
from flows.recipe import load_recipe
from specs.pack import load_pack
from specs.policy import PackError
from tests.flows.test_show import checkpoint
from tests.rows import completion, example, judgement, rollout, run, spec_text
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import CHECKPOINTS, COMPLETIONS, EXAMPLES, JUDGEMENTS, ROLLOUTS, RUNS, SPECS


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return Path(shutil.copytree("specs/harbour", tmp_path / "pack"))


def spec_row(pack: Path, category: str, **changes: Any) -> Any:
    spec = load_pack(pack).spec([category])
    return spec_text(spec.id, text=spec.text, categories=[category], **changes)


@pytest.fixture
def home(tmp_path: Path, pack: Path) -> Home:
    """Completions of boats and fish with judgements, examples, and trainings on them."""
    place = Home(str(tmp_path / "home"))
    boats, fish = spec_row(pack, "boats"), spec_row(pack, "fish")
    write_shard(place, SPECS, [boats, fish])
    of = {"c1": boats.spec_id, "c2": boats.spec_id, "c3": fish.spec_id}
    write_shard(place, COMPLETIONS, [completion(c, spec_id=s) for c, s in of.items()])
    write_shard(place, JUDGEMENTS, [judgement(c, 0, 9.0, spec_id=s) for c, s in of.items()])
    write_shard(
        place,
        EXAMPLES,
        [
            example("c1", set_id="of boats", spec_id=boats.spec_id),
            example("c3", set_id="of fish", spec_id=fish.spec_id),
        ],
    )
    write_shard(
        place,
        CHECKPOINTS,
        [
            checkpoint("on boats", set_id="of boats"),
            checkpoint("after boats", set_id=None, stage="rl", parent_id="on boats"),
            checkpoint("on fish", set_id="of fish"),
            checkpoint("rolled", set_id=None, stage="rl"),
        ],
    )
    write_shard(place, ROLLOUTS, [rollout("r", checkpoint_id="rolled", spec_id=boats.spec_id)])
    stage = {"num_rows": 3, "seconds": 36.0, "usage": {"output_tokens": 300}}
    recipe = load_recipe("harbour").model_copy(update={"gpu_hour_price": 2.0})
    resolved = json.loads(recipe.model_dump_json())
    resolved["engine"]["use_gpu"] = True
    write_shard(
        place,
        RUNS,
        [
            run(
                "r1",
                spec_ids=[boats.spec_id, fish.spec_id],
                set_id="of boats",
                resolved_recipe=json.dumps(resolved),
                figures=json.dumps({"stages": {"generate": stage, "judge": stage}}),
            )
        ],
    )
    return place


def edit(pack: Path, old: str, new: str, name: str = "boats.md") -> None:
    text = (pack / name).read_text()
    assert old in text
    (pack / name).write_text(text.replace(old, new))


def test_a_pack_that_nobody_edited_makes_nothing_stale(pack: Path, home: Home) -> None:
    diff = diff_packs(str(pack), None, home.url)
    assert (diff.changes, diff.stale, diff.checkpoints, diff.remakes) == ([], [], [], [])
    assert diff.unseen == ["bread", "cloth", "gates", "lamps", "tools"]


def test_a_renamed_category_is_told_as_one_that_left_and_one_that_came(
    pack: Path, home: Home
) -> None:
    edit(pack, "id: boats", "id: ships")
    diff = diff_packs(str(pack), None, home.url)
    assert {(one.category, one.part, one.change) for one in diff.changes} == {
        ("boats", "policy", "only in the warehouse"),
        ("boats", "summary", "removed"),
        ("ships", "summary", "added"),
    }
    assert "ships" in diff.unseen


def test_a_damaged_shard_is_told(pack: Path, home: Home) -> None:
    [shard] = Path(home.url, "judgements").glob("*.parquet")
    shard.write_bytes(b"PAR1")
    ended = CliRunner().invoke(app, ["policies", "diff", str(pack), "--home", home.url])
    assert f"is no shard of Precept's and not read: {shard.name}" in ended.stderr


def test_an_edited_rule_makes_the_rows_of_its_category_stale(pack: Path, home: Home) -> None:
    edit(pack, "raft is stolen", "raft is unsafe")
    diff = diff_packs(str(pack), None, home.url)
    assert [(c.category, c.part) for c in diff.changes if c.change == "edited"] == [
        ("boats", "rule B3")
    ]
    [stale] = diff.stale
    assert stale == {
        "category": "boats",
        "completions": 2,
        "judgements": 2,
        "examples": 1,
        "rollouts": 1,
        "answers": 0,
        "grades": 0,
    }


def test_checkpoints_that_learned_from_the_old_text_are_named_with_their_offspring(
    pack: Path, home: Home
) -> None:
    edit(pack, "raft is stolen", "raft is unsafe")
    named = {row["checkpoint_id"] for row in diff_packs(str(pack), None, home.url).checkpoints}
    assert named == {"on boats", "after boats", "rolled"}


def test_what_is_made_again_costs_what_such_rows_took(pack: Path, home: Home) -> None:
    edit(pack, "raft is stolen", "raft is unsafe")
    remakes = {one.stage: one for one in diff_packs(str(pack), None, home.url).remakes}
    assert {stage: one.num_rows for stage, one in remakes.items()} == {"generate": 2, "judge": 2}
    one = remakes["generate"]
    assert (one.output_tokens, one.hours) == (200, pytest.approx(24 / 3600))
    assert one.cost == pytest.approx(2.0 * 24 / 3600)


def test_rows_of_a_policy_that_is_gone_are_stale_and_not_made_again(pack: Path, home: Home) -> None:
    (pack / "fish.md").unlink()
    diff = diff_packs(str(pack), None, home.url)
    # The summary of fish is gone from every spec, so the rows of boats are made again.
    assert [row["category"] for row in diff.stale] == ["boats", "fish"]
    assert {one.stage: one.num_rows for one in diff.remakes} == {"generate": 2, "judge": 2}


def test_two_folders_are_compared_without_a_warehouse(pack: Path) -> None:
    edit(pack, "raft is stolen", "raft is unsafe")
    diff = diff_packs("specs/harbour", str(pack), None)
    assert [(c.category, c.part, c.change) for c in diff.changes] == [
        ("boats", "rule B3", "edited")
    ]
    assert diff.looked_at is None


def test_a_warehouse_of_another_pack_is_refused(pack: Path, home: Home) -> None:
    edit(pack, "id: harbour", "id: elsewhere", "style.md")
    with pytest.raises(PackError, match="has no spec of pack 'elsewhere'"):
        diff_packs(str(pack), None, home.url)


def test_the_command_marks_words_and_writes_nothing(pack: Path, home: Home) -> None:
    edit(pack, "raft is stolen", "raft is unsafe")
    before = sorted(Path(home.url).rglob("*"))
    ended = CliRunner().invoke(app, ["policies", "diff", str(pack), "--home", home.url])
    assert ended.exit_code == 0, ended.output
    assert (
        "boats, rule B3: edited\n  - raft [B3, refuse]: raft is [-stolen-]{+unsafe+}"
        in ended.stdout
    )
    assert "Checkpoints that descend from it" in ended.stdout
    assert sorted(Path(home.url).rglob("*")) == before
