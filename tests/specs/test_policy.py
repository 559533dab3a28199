"""Packs are compiled to stable specs, which change only with the words that a model reads."""

from pathlib import Path

import pytest

from specs.pack import load_pack
from specs.policy import Outcome, Pack, PackError, spec_key
from tests.specs.town import BOATS, STYLE, write_pack
from warehouse.catalog import connect
from warehouse.home import Home


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return load_pack(write_pack(tmp_path / "town"))


def spec_ids(pack: Pack) -> dict[str, str]:
    return {name: pack.spec([name]).id for name in pack.policies}


def test_a_spec_holds_every_word_of_its_policy_and_only_the_summaries_of_others(
    pack: Pack,
) -> None:
    assert pack.spec(["boats"]).text == "\n".join(
        [
            "# Policies",
            "- boats: comply sound boats; refuse leaking boats",
            "- fish: safe_complete rare fish",
            "# Principles",
            "Help where the rules allow it.",
            "# Style",
            "- comply: Name what to take.",
            "- refuse: Say sorry.",
            "- safe_complete: Name who can help.",
            "# Policy boats",
            "- hull: the shell of a boat",
            "- Skiff [B1, comply]: It is safe on a calm day.",
            "  Includes: skiff -> shore",
            "  Excludes: rowing at night (see B2)",
            "  Case: may I row (comply)",
            "- Raft [B2, refuse]: It leaks.",
            "Style: Be brief.",
        ]
    )


def test_editing_a_rule_changes_the_spec_of_its_category_alone(tmp_path: Path) -> None:
    before = spec_ids(load_pack(write_pack(tmp_path)))
    edited = BOATS.replace("It leaks.", "It sinks.")
    after = spec_ids(load_pack(write_pack(tmp_path, boats=edited)))
    assert after["boats"] != before["boats"]
    assert after["fish"] == before["fish"]


@pytest.mark.parametrize(
    "changes",
    [
        {"boats": BOATS.replace("sound boats", "dry boats")},
        {"style": STYLE.replace("Say sorry.", "Say no.")},
    ],
    ids=["a summary", "the style"],
)
def test_editing_a_part_that_categories_share_changes_every_spec(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    before = spec_ids(load_pack(write_pack(tmp_path)))
    after = spec_ids(load_pack(write_pack(tmp_path, **changes)))
    assert not set(before.values()) & set(after.values())


def test_fields_that_no_model_is_shown_change_no_spec(tmp_path: Path) -> None:
    before = spec_ids(load_pack(write_pack(tmp_path)))
    edited = BOATS.replace("version: 1.10", "version: 2").replace("title: Boats", "title: Ships")
    assert spec_ids(load_pack(write_pack(tmp_path, boats=edited))) == before


def test_a_spec_of_several_categories_does_not_depend_on_their_order(pack: Pack) -> None:
    both = pack.spec(["fish", "boats", "fish"])
    assert both == pack.spec(["boats", "fish"])
    assert both.rule_ids == ("B1", "B2", "F1")


def test_a_summary_spec_holds_no_rule(pack: Pack) -> None:
    spec = pack.spec([], detail="summary")
    assert spec.rule_ids == ()
    assert "Policy boats" not in spec.text and "leaking boats" in spec.text


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        (["birds"], "no category 'birds'; use one of boats, fish, or map it"),
        ([], "detail='summary'"),
    ],
)
def test_a_spec_of_no_known_category_is_refused(
    pack: Pack, categories: list[str], message: str
) -> None:
    with pytest.raises(PackError, match=message):
        pack.spec(categories)


def test_categories_that_a_pack_lacks_are_left_out_and_all_summaries_shown_if_it_has_none(
    pack: Pack,
) -> None:
    assert pack.spec_for(["birds", "boats"]) == pack.spec(["boats"])
    assert pack.spec_for(["birds"]) == pack.spec_for([]) == pack.spec([], detail="summary")


@pytest.mark.parametrize(
    ("rule_id", "outcome"),
    [("B1", Outcome.REFUSE), ("B2", Outcome.COMPLY), ("F1", Outcome.REFUSE)],
)
def test_one_rule_gets_another_outcome_and_the_rest_of_the_pack_is_as_it_was(
    pack: Pack, rule_id: str, outcome: Outcome
) -> None:
    other = pack.with_other_outcome(rule_id)
    assert other.rule(rule_id).outcome is outcome
    kept = set(pack.rule_ids) - {rule_id}
    assert all(other.rule(name) == pack.rule(name) for name in kept)
    assert other.spec([], detail="summary") == pack.spec([], detail="summary")
    assert pack.with_other_outcome("X9") == pack


@pytest.mark.parametrize("categories", [[], ["boats"], ["fish", "boats"]])
def test_python_and_sql_give_a_set_of_categories_the_same_name(
    tmp_path: Path, categories: list[str]
) -> None:
    connection = connect(Home(str(tmp_path)))
    in_sql = connection.execute("SELECT spec_key(?::VARCHAR[])", [categories]).fetchone()
    assert in_sql == (spec_key(categories),)


def test_a_spec_has_the_name_of_its_categories(pack: Pack) -> None:
    assert pack.spec(["fish", "boats"]).key == "boats+fish"
    assert pack.spec([], detail="summary").key == ""
