"""What differs between two packs is told part by part, and word by word where it was edited."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from specs.diff import full_texts, pack_changes, word_pieces
from specs.pack import load_pack
from tests.specs.town import BOATS, FISH, write_pack


def specs_of(folder: Path, **changes: str) -> list[str]:
    return full_texts(load_pack(write_pack(folder, **changes)))


def test_edited_added_and_removed_parts_are_told(tmp_path: Path) -> None:
    edited = BOATS.replace("It leaks.", "It sinks.").replace("leaking boats", "old boats")
    edited = edited.replace("## B1 Skiff", "## B3 Skiff").replace("Be brief.", "Be kind.")
    told = pack_changes(specs_of(tmp_path / "a"), specs_of(tmp_path / "b", boats=edited))
    assert {(one.category, one.part, one.change) for one in told} == {
        ("boats", "summary", "edited"),
        ("boats", "rule B1", "removed"),
        ("boats", "rule B3", "added"),
        ("boats", "rule B2", "edited"),
        ("boats", "style", "edited"),
    }


def test_a_policy_that_one_pack_lacks_is_told_by_its_name(tmp_path: Path) -> None:
    before, after = specs_of(tmp_path / "a"), specs_of(tmp_path / "b", fish=FISH)
    (tmp_path / "b" / "fish.md").unlink()
    after = full_texts(load_pack(tmp_path / "b"))
    told = pack_changes(before, after, names=("old", "new"))
    assert ("fish", "policy", "only in old") in [(t.category, t.part, t.change) for t in told]


def test_equal_packs_do_not_differ(tmp_path: Path) -> None:
    assert pack_changes(specs_of(tmp_path / "a"), specs_of(tmp_path / "b")) == []


def test_only_the_words_that_changed_are_marked() -> None:
    assert word_pieces("raft is stolen", "raft is unsafe") == [
        ("same", "raft is "),
        ("removed", "stolen"),
        ("added", "unsafe"),
    ]


@given(st.text("ab \n", max_size=30), st.text("ab \n", max_size=30))
def test_no_word_of_either_text_is_lost(before: str, after: str) -> None:
    pieces = word_pieces(before, after)
    assert "".join(text for kind, text in pieces if kind != "added").split() == before.split()
    assert "".join(text for kind, text in pieces if kind != "removed").split() == after.split()
