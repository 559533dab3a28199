"""Sources: every kind of file gives the same candidates, and what cannot be read is refused."""

import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from tasks.data.candidates import Candidate, read_source
from tasks.data.sources import SourceConfig
from tasks.paths import PROJECT
from tests.rows import jsonl, source, source_rows
from warehouse.tables import content_id


def texts(candidates: Iterable[Candidate]) -> list[str]:
    return [row.messages[-1]["content"] for row in candidates if not row.fault]


# Reading.


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "parquet", "nested.json"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: str, packed: bool) -> None:
    rows = source_rows('Where is the "boat"?', "Two\nlines", "Größe, 大きい?")
    path = tmp_path / f"prompts.{kind}"
    if kind == "csv":
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, ["prompt", "category"])
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "jsonl":
        jsonl(path, rows)
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps({"version": 1, "rows": rows} if "." in kind else rows))
    if packed:
        Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        path = Path(f"{path}.gz")
    candidates = list(read_source(source(path)))
    assert texts(candidates) == [row["prompt"] for row in rows]
    assert [row.categories for row in candidates] == [["boats"]] * 3


def test_a_folder_and_a_glob_are_read_in_order_of_name(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / ".cache").mkdir()
    jsonl(tmp_path / "b.jsonl", source_rows("second"))
    jsonl(tmp_path / "a.jsonl", source_rows("first"))
    jsonl(tmp_path / "deep" / "c.JSONL", source_rows("third"))
    jsonl(tmp_path / ".cache" / "d.jsonl", source_rows("hidden"))
    (tmp_path / "LICENSE").write_text("a file of another kind")
    assert texts(read_source(source(tmp_path))) == ["first", "second", "third"]
    assert texts(read_source(source(tmp_path / "*.jsonl"))) == ["first", "second"]


def test_a_relative_path_is_looked_up_in_the_working_folder_and_in_precept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "here.jsonl", source_rows("here"))
    assert texts(read_source(source("here.jsonl"))) == ["here"]
    shipped = sorted((PROJECT / "infra" / "harbour" / "prompts").glob("train.jsonl"))
    if not shipped:
        pytest.skip("the scale model's prompts are not built")
    relative = shipped[0].relative_to(PROJECT)
    assert len(texts(read_source(source(relative, limit=7)))) == 7


def test_a_data_set_is_read_by_datasets_from_a_local_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    rows = [
        {"prompt": "one", "category": ["fish", "boats"], "label": 0},
        {"prompt": "two", "category": ["bread"], "label": 1},
    ]
    jsonl(tmp_path / "set" / "train.jsonl", rows)
    chosen = SourceConfig(
        name="set",
        dataset=str(tmp_path / "set"),
        category="category",
        ideal_response="label",
        ideal_response_map={"0": "comply", "1": "refuse"},
    )
    first, second = read_source(chosen)
    assert first.messages == [{"role": "user", "content": "one"}]
    assert first.categories == ["boats", "fish"]
    assert second.ideal_response == "refuse"
    with pytest.raises(ValueError, match=r"'set': data set .* dataset_split"):
        list(read_source(chosen.model_copy(update={"dataset_split": "nowhere"})))
    with pytest.raises(ValueError, match=r"no column 'kind'; its columns are .*label"):
        list(read_source(chosen.model_copy(update={"category": "kind"})))


def test_a_chat_is_read_whole_from_a_list_and_from_json_text(tmp_path: Path) -> None:
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello", "name": "someone"},
        {"role": "assistant", "content": ""},
        {"role": "tool", "content": "3"},
        {"role": "user", "content": "Well?"},
    ]
    rows = [{"messages": chat, "prompt": "not this"}, {"messages": json.dumps(chat), "prompt": ""}]
    path = jsonl(tmp_path / "chats.jsonl", rows)
    first, second = read_source(source(path, categories=["boats"]))
    assert [turn["role"] for turn in first.messages] == [turn["role"] for turn in chat]
    assert all(turn.keys() == {"role", "content"} for turn in first.messages)
    assert first.prompt_id == second.prompt_id


def test_the_id_of_a_prompt_depends_on_its_messages_alone(tmp_path: Path) -> None:
    plain = jsonl(tmp_path / "a.jsonl", source_rows("Größe"))
    chat = [{"content": "Größe", "role": "user"}]
    as_chat = jsonl(tmp_path / "b.jsonl", [{"messages": chat, "category": "fish"}])
    (first,), (second,) = (list(read_source(source(path))) for path in (plain, as_chat))
    canonical = '[{"content":"Größe","role":"user"}]'
    assert first.prompt_id == second.prompt_id == content_id(canonical)


def test_a_row_that_cannot_be_used_has_a_fault(tmp_path: Path) -> None:
    def chat(*turns: tuple[Any, Any]) -> list[dict[str, Any]]:
        return [{"role": role, "content": content} for role, content in turns]

    question = ("user", "Well?")
    rows = [
        {"messages": chat(question), "category": "boats"},
        {"messages": chat(question, ("assistant", "?"), ("tool", "3")), "category": "boats"},
        {"messages": chat(("assistant", "Yes.")), "category": "boats"},
        {"messages": chat(("narrator", "x"), question), "category": "boats"},
        {"messages": chat((None, "x"), question), "category": "boats"},
        {"messages": chat(("system", None), question), "category": "boats"},
        {"messages": '[{"role": "user", "role": "system", "content": "x"}]', "category": "boats"},
        {"messages": chat(("user", " \n ")), "category": "boats"},
        {"messages": chat(("user", None)), "category": "boats"},
        {"messages": chat(("user", ["part"])), "category": "boats"},
        {"messages": [], "category": "boats"},
        {"messages": None, "category": "boats"},
        {"messages": "no chat", "category": "boats"},
        {"messages": {"role": "user"}, "category": "boats"},
        {"messages": ["Well?"], "category": "boats"},
        {"messages": chat(("user", "Or this?")), "category": "weather"},
        {},
    ]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    faults = Counter(row.fault for row in read_source(source(path, category_map={"weather": ""})))
    assert faults == {
        None: 1,
        "not_on_user_turn": 2,
        "unknown_role: narrator": 1,
        "no_role": 1,
        "no_content": 1,
        "key_stands_twice": 1,
        "empty_prompt": 4,
        "not_text": 1,
        "not_a_chat": 3,
        "left_out": 1,
        "unreadable_row": 1,
    }


def test_a_csv_row_that_does_not_fit_its_header_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,category\nfine,boats\n\nwith, a comma,boats\nshort\n")
    faults = [row.fault for row in read_source(source(path))]
    assert faults == [None, "unreadable_row", "unreadable_row"]


def test_lone_surrogates_and_nul_are_replaced_and_line_ends_normalised(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"prompt": "a\\ud800b\\u0000c\\r\\nd", "category": "boats", "note": "n\\udfff"}\n'
        '{"prompt": "e\\ud83d\\ude00f\\rg", "category": "boats", "note": null}\n'
    )
    candidates = list(read_source(source(path, metadata=["note"])))
    assert texts(candidates) == ["a\ufffdb\ufffdc\nd", "e😀f\rg"]
    assert [row.metadata for row in candidates] == [["n\ufffd"], []]


def test_columns_give_language_transform_ideal_response_and_findings(tmp_path: Path) -> None:
    row = {
        "text": "Bonjour",
        "category": "Fishing",
        "label": "unsafe",
        "lang": "fr",
        "how": "base64",
        "notes": ["one", "", None],
        "score": 0.5,
    }
    path = jsonl(tmp_path / "rows.jsonl", [row, {**row, "text": "Oui", "lang": None, "how": ""}])
    chosen = source(
        path,
        prompt="text",
        category="category",
        category_map={"Fishing": "fish"},
        ideal_response="label",
        ideal_response_map={"unsafe": "safe_complete"},
        language="de",
        language_column="lang",
        transform="how",
        metadata=["notes", "score"],
        label_as_metadata=True,
    )
    first, second = read_source(chosen)
    assert (first.categories, first.ideal_response) == (["fish"], "safe_complete")
    assert first.metadata == ["one", "0.5", "the ideal response is safe_complete"]
    assert (first.language, first.transform) == ("fr", "base64")
    assert (second.language, second.transform) == ("de", None)


def test_a_row_is_left_out_only_if_all_its_labels_are_mapped_to_nothing(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "category": ["Weather", "boats"]},
        *source_rows("b", category="Weather"),
    ]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    first, second = read_source(source(path, category_map={"Weather": ""}))
    assert (first.categories, first.fault) == (["boats"], None)
    assert second.fault == "left_out"


# Refusing.


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", "", "'asked': no rows in .*empty.csv"),
        ("header.csv", "prompt,category\n", "no rows"),
        ("empty.json", "[]", "no rows"),
        ("empty.jsonl", "\n\n", "no rows"),
        ("rows.csv", "text,kind\na,b\n", "no column 'category'; its columns are text, kind"),
        ("rows.csv", 'prompt,category\n"never closed,boats\n', r"rows.csv:2: not CSV"),
        ("rows.csv", 'prompt;category\n"a";b\n', r"rows.csv:2: not CSV .* or set delimiter"),
        ("rows.jsonl", '{"prompt": "a"}\n{"prompt": \n', r"rows.jsonl:2: not JSON"),
        ("rows.jsonl", '{"prompt": "a"}\n[1]\n', r"rows.jsonl:2: not an object"),
        ("rows.json", '[\n{"prompt": "a"},\n{\n]', r"rows.json:4: not JSON"),
        ("rows.json", '[{"prompt": "a"}] 7', r"rows.json:1: not JSON \(Extra data\)"),
        ("rows.json", '[{"prompt": "a"}', r"rows.json:1: not JSON"),
        ("rows.json", '{"a": [1], "b": {"c" 2}}', r"rows.json:1: not JSON"),
        ("rows.json", "[" * 100_000, "rows.json:1: not JSON .nested too deeply"),
        ("rows.json", '{"a": [], "b": []}', r"2 keys .* \(a, b\); say in rows_key"),
        ("rows.json", '{"prompt": {"0": "a"}}', "no key of the object holds a list of rows; write"),
        ("rows.json", "7", "rows.json: must be a list of rows"),
        ("rows.json", "[7]", "row 1 is not an object"),
        ("rows.jsonl", "[" * 100_000, "rows.jsonl:1: not JSON"),
        ("rows.parquet", "PAR", "rows.parquet: not Parquet"),
        ("rows.jsonl.gz", "plain", "rows.jsonl.gz: not a whole gzip file"),
        ("rows.txt", "a", "rows.txt must be of a kind that can be read"),
        ("rows.jsonl", '{"category": "boats"}', "neither a column 'messages' nor 'prompt'"),
        ("rows.csv", "prompt;category\na;boats\n", r"columns are prompt;category \(set delimiter"),
        ("rows.csv", ",category,\na,boats,b\n", "columns are column_1, category, column_3: say"),
        ("rows.jsonl.zst", "plain", "rows.jsonl.zst: not a whole zstd file"),
        ("rows.jsonl.bz2", "plain", "rows.jsonl.bz2: not a whole bzip2 file"),
        ("rows.jsonl.xz", "plain", "rows.jsonl.xz: not a whole xz file"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused_with_its_place(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        list(read_source(source(tmp_path / name)))


def test_a_file_that_is_not_utf_8_or_is_cut_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("prompt,category\nGröße,boats\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin.csv: not UTF-8 .* save it as UTF-8"):
        list(read_source(source(tmp_path / "latin.csv")))
    whole = gzip.compress(json.dumps(source_rows("a" * 1000)[0]).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-12])
    with pytest.raises(ValueError, match=r"cut.jsonl.gz: not a whole gzip file"):
        list(read_source(source(tmp_path / "cut.jsonl.gz")))


def test_a_missing_file_is_refused_with_the_places_that_were_searched() -> None:
    with pytest.raises(
        ValueError, match=r"no .csv, .* at 'nowhere.csv' \(looked beside the recipe"
    ):
        list(read_source(source("nowhere.csv")))


def test_an_unmapped_ideal_response_is_refused_without_quoting_a_long_text(
    tmp_path: Path,
) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [{"prompt": "a", "label": "word " * 500}])
    with pytest.raises(ValueError, match="must be one of comply, refuse, safe_complete") as caught:
        list(read_source(source(path, categories=["boats"], ideal_response="label")))
    assert len(str(caught.value)) < 300


def test_a_list_of_labels_has_the_ideal_response_of_the_first_that_says_one(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "label": ["violent", "harmful"]}, {"prompt": "b", "label": ["violent"]}]
    options = {
        "categories": ["boats"],
        "ideal_response": "label",
        "ideal_response_map": {"violent": "", "harmful": "refuse"},
    }
    path = jsonl(tmp_path / "rows.jsonl", rows)
    ideals = [row.ideal_response for row in read_source(source(path, **options))]
    assert ideals == ["refuse", None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "has neither: give it either path or dataset"),
        ({"path": "a", "dataset": "b"}, "has both: give it either path or dataset"),
        ({"path": "a", "prompt": "p", "messages": "m"}, "both prompt and messages"),
        ({"path": "a", "category": "c", "categories": ["d"]}, "both category and categories"),
        ({"path": "a", "revision": "main"}, "both path and revision"),
        ({"path": "a", "category_map": {"b": "c"}}, "category_map without category"),
        ({"path": "a", "label_as_metadata": True}, "label_as_metadata without ideal_response"),
        ({"path": "a", "ideal_response_value": "maybe"}, "ideal_response_value"),
        ({"path": "a", "prompt": "p", "turns": ["t"]}, "both prompt and turns"),
        ({"path": "a", "prompt": {"en": "p"}, "language_column": "l"}, "prompt and language_colu"),
        ({"dataset": "a", "delimiter": ";"}, "both dataset and delimiter"),
        ({"path": "a", "delimiter": ";;"}, "delimiter"),
        ({"path": "a", "role_map": {"narrator": "narrator"}}, "role_map"),
        ({"path": "a", "columns": "b"}, "columns"),
    ],
)
def test_a_source_that_contradicts_itself_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SourceConfig(name="asked", **options)
