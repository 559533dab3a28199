"""A change of policy makes again exactly the rows that it made stale; training continues from the
checkpoint before it."""

import json
import shutil
from pathlib import Path

import pytest

from flows.evaluate import render_suites
from flows.policy_diff import diff_packs
from flows.preflight import Command, check
from flows.recipe import SUITES, Recipe, load_recipe
from infra.harbour import change, world
from infra.harbour.oracle import read_request
from specs.pack import load_pack
from specs.policy import Outcome
from tasks.evaluation.suites import load_suites
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.lineage import lineage_of
from warehouse.tables import Checkpoint


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """The shipped pack with one rule edited: rafts, which were refused, are allowed."""
    folder = Path(shutil.copytree(world.PACK, tmp_path / "pack"))
    change.edit_rule(folder, "B3", Outcome.COMPLY)
    return folder


def test_an_edited_rule_has_its_outcome_and_its_policy_a_higher_version(pack: Path) -> None:
    before, after = load_pack(world.PACK), load_pack(pack)
    rule = after.rule("B3")
    assert (rule.title, rule.outcome, rule.text) == ("raft", Outcome.COMPLY, "raft is fine")
    versions = [str(one.policies["boats"].version) for one in (before, after)]
    assert versions == ["1", "2"]
    assert change.changed_rules(before, after) == {"boats": ["raft"]}


def test_an_edit_makes_the_spec_of_its_category_another_and_no_other(pack: Path) -> None:
    before, after = load_pack(world.PACK), load_pack(pack)
    edited = [name for name in before.policies if before.spec([name]).id != after.spec([name]).id]
    assert edited == ["boats"]


def test_prompts_of_an_edited_rule_have_the_label_that_it_asks_for(pack: Path) -> None:
    shipped = [json.loads(line) for line in change.TRAIN.read_text().splitlines()]
    relabelled = change.labelled(change.TRAIN, load_pack(pack))
    assert [row["messages"] for row in relabelled] == [row["messages"] for row in shipped]
    pairs = zip(shipped, relabelled, strict=True)
    moved = [new for old, new in pairs if old["ideal_response"] != new["ideal_response"]]
    assert {row["ideal_response"] for row in moved} == {"comply"}
    assert {read_request(row["messages"]).subjects for row in moved} == {("raft",)}
    assert len(moved) == 8


def test_suites_hold_what_training_never_sees_each_prompt_in_one(pack: Path) -> None:
    after = load_pack(pack)
    rows = change.suite_rows(after, {"boats": ["raft"]})
    subjects = {
        name: {(row["category"], *read_request(row["messages"]).subjects) for row in suite}
        for name, suite in rows.items()
    }
    assert subjects["changed rules"] == {("boats", "raft")}
    assert {category for category, _ in subjects["rules beside them"]} == {"boats"}
    assert "boats" not in {category for category, _ in subjects["other categories"]}
    texts = [json.dumps(row["messages"]) for suite in rows.values() for row in suite]
    learned = {json.dumps(row["messages"]) for row in change.labelled(change.TRAIN, after)}
    assert len(texts) == len(set(texts)) and learned.isdisjoint(texts)
    # 12 requests in each of three tongues; 504 others but the 6 of the edited rule.
    assert [len(suite) for suite in rows.values()] == [36, 66, 432]


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        (["B3"], "is no edit of a rule; write it as B3=comply"),
        (["B3=allow"], "is no edit of a rule; write it as B3=comply"),
        (["Z1=comply"], "no rule 'Z1' in"),
    ],
)
def test_edit_that_cannot_be_made_is_told(rules: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(change.ChangeError, match=sentence):
        change.prepare(tmp_path / "new", rules, None)


def test_a_pack_that_nobody_edited_is_no_change(tmp_path: Path) -> None:
    with pytest.raises(change.ChangeError, match="edit a rule"):
        change.prepare(tmp_path / "new", [], world.PACK)


def test_a_folder_in_use_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(change.ChangeError, match="is not empty"):
        change.prepare(tmp_path, ["B3=comply"], None)
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


@pytest.mark.parametrize("command", ["refresh", "evaluate"])
def test_commands_of_a_change_pass_every_check(
    command: Command, tmp_path: Path, disk: Home
) -> None:
    made, _ = change.prepare(tmp_path / "new", ["B3=comply"], None)
    overrides = [option for option in made.edits if option != "--set"]
    recipe = load_recipe(change.RECIPE, overrides=overrides)
    check(command, recipe, disk.url)
    assert recipe.evaluate is not None
    suites = load_suites(recipe.evaluate.suites, SUITES)
    built = render_suites(recipe, recipe.load_pack(), suites, limit=None)
    assert [len(suite.cases) for suite in built] == [36, 66, 432]


def small(few: Path, *changes: str) -> Recipe:
    """Returns the recipe of the change on few prompts and steps."""
    return load_recipe(
        change.RECIPE,
        overrides=[
            f"sources.0.path={json.dumps(str(few))}",
            "generate.samples=1",
            "judge.samples=2",
            "sft.epochs=4",
            "sft.max_length=256",
            "sft.batch_size=8",
            "sft.workers.rows_at_once=8",
            "sft.workers.num_cpus=1",
            "sft.capability.share=0.05",
            *changes,
        ],
    )


def few_prompts(path: Path) -> Path:
    """Writes three prompts of each category."""
    rows = [json.loads(line) for line in change.TRAIN.read_text().splitlines()]
    few = [[row for row in rows if row["category"] == name][:3] for name in world.THINGS]
    change.write_rows(path, [row for rows in few for row in rows])
    return path


def first_loss(checkpoint: Checkpoint) -> float:
    return change.first_loss({"metrics": checkpoint.metrics})


@pytest.mark.slow
def test_stale_rows_alone_are_made_again_and_training_continues_from_its_parent(
    tmp_path: Path, pack: Path
) -> None:
    from flows.refresh import refresh
    from flows.train import train

    place, few = str(tmp_path / "home"), few_prompts(tmp_path / "few.jsonl")
    before, after = small(few), small(few, f"pack={json.dumps(str(pack))}")
    refresh(before, place)
    parent = train(before, place).checkpoints["sft"]

    stale = {row.stage: row.num_rows for row in diff_packs(str(pack), None, place).remakes}
    refreshed = refresh(after, place)
    assert stale["generate"] == refreshed.figures.stages["generate"].num_rows == 3
    made = connect(Home(place)).sql(
        "SELECT DISTINCT s.categories FROM completions c JOIN specs s USING (spec_id) "
        f"WHERE c.run_id = '{refreshed.run_id}'"
    )
    assert made.fetchall() == [(["boats"],)]
    assert diff_packs(str(pack), None, place).remakes == []

    trained = train(after, place)
    child = trained.checkpoints["sft"]
    assert (child.parent_id, child.parent) == (parent.checkpoint_id, parent.model)
    assert lineage_of(connect(Home(place)), child).name == "SFT+SFT"
    sources = trained.sources["sft"]
    assert 0 < sources["examples"] <= 3
    assert sources["replay"] == 4 * sources["examples"]
    # The base model was never taught to reason by rules that it is not shown; the parent was.
    assert first_loss(child) < 0.7 * first_loss(parent)
    again = train(after, place)
    assert (again.num_trained, again.checkpoints["sft"]) == (0, child)
