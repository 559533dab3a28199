"""Folders and globs: each file is read once, and what is skipped can be named."""

from pathlib import Path

import pytest

from tasks.data.candidates import NoteTaker, read_source
from tasks.data.collect import CollectConfig, collect
from tasks.data.files import skipped_files
from tests.rows import jsonl, source, source_rows
from tests.tasks.data.test_sources import texts
from warehouse.catalog import connect
from warehouse.home import Home


def test_files_of_another_kind_are_named(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    jsonl(tmp_path / "deep" / "a.jsonl", source_rows("one"))
    for name in ("LICENSE", "deep/b.txt", "deep/c.jsonl.zip", ".hidden"):
        (tmp_path / name).write_text("x")
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    skipped = ["LICENSE", "deep/b.txt", "deep/c.jsonl.zip", "gone.jsonl"]
    assert skipped_files(source(tmp_path)) == skipped
    assert skipped_files(source(tmp_path / "deep" / "*")) == ["b.txt", "c.jsonl.zip"]
    assert skipped_files(source(tmp_path / "deep" / "*.jsonl")) == []
    reader = NoteTaker(source(tmp_path))
    assert texts(reader.candidates()) == ["one"]
    assert str(reader.notes) == f"4 files skipped: {', '.join(skipped)}"


def test_a_collection_notes_what_is_skipped_and_where_the_first_bad_rows_stand(
    tmp_path: Path, disk: Home
) -> None:
    folder = tmp_path / "prompts"
    folder.mkdir()
    user = {"role": "user", "content": "Hello"}
    answered = {"messages": [user, {"role": "assistant", "content": "Hi."}]}
    jsonl(folder / "a.jsonl", [answered, {"messages": []}, {"messages": []}])
    (folder / "notes.txt").write_text("x")
    (folder / "cut.jsonl").write_text("")
    collected = collect(
        [source(folder, categories=["boats"])],
        config=CollectConfig(),
        pack_categories=["boats"],
        home=disk,
        connection=connect(disk),
    )
    assert str(collected.notes["asked"]) == (
        f"first empty_prompt at {folder}/a.jsonl:2; 1 chats asked without their last answer; "
        f"1 file skipped: notes.txt; 1 file empty: {folder}/cut.jsonl"
    )


def test_links_are_followed_once(tmp_path: Path) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    for place in (folder / "deep", other):
        place.mkdir(parents=True)
    jsonl(folder / "a.jsonl", source_rows("one"))
    jsonl(other / "b.jsonl", source_rows("two"))
    (folder / "itself").symlink_to(folder)
    (folder / "deep" / "up").symlink_to(folder)
    (folder / "deep" / "other").symlink_to(other)
    (folder / "deep" / "others").symlink_to(other)
    (folder / "z.jsonl").symlink_to(folder / "a.jsonl")
    (other / "back").symlink_to(folder / "deep")
    for path in (
        folder,
        folder / "**",
        folder / "**" / "*.jsonl",
        tmp_path / "*" / "**" / "*.jsonl",
    ):
        assert sorted(texts(read_source(source(path)))) == ["one", "two"]
    assert skipped_files(source(folder)) == []


def test_a_cache_of_links_to_files_named_by_their_hash_is_read(tmp_path: Path) -> None:
    for name in ("blobs", "snapshots"):
        (tmp_path / name).mkdir()
    jsonl(tmp_path / "blobs" / "0a1b", source_rows("one"))
    (tmp_path / "snapshots" / "data.jsonl").symlink_to(tmp_path / "blobs" / "0a1b")
    assert texts(read_source(source(tmp_path))) == ["one"]
    assert skipped_files(source(tmp_path)) == []


def test_a_folder_whose_name_looks_like_a_glob_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "a[1]*" / "sub?"
    folder.mkdir(parents=True)
    jsonl(folder / "rows.jsonl", source_rows("one"))
    assert texts(read_source(source(tmp_path / "a[1]*"))) == ["one"]


def test_a_file_that_cannot_be_opened_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ValueError, match=r"no \.csv"):
        list(read_source(source(tmp_path / "folder.jsonl")))
