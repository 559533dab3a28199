"""Kinds of files: each says the same of the same rows, whole or not at all, in limited memory."""

import bz2
import csv
import gzip
import io
import json
import lzma
import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data.candidates import read_source
from tests.rows import jsonl, source, source_rows
from tests.tasks.data.test_sources import texts

# The same rows in every kind of file.


def pack_zstd(content: bytes) -> bytes:
    target = pa.BufferOutputStream()
    with pa.CompressedOutputStream(target, "zstd") as stream:
        stream.write(content)
    return bytes(target.getvalue())


@pytest.mark.parametrize("ending", [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize(
    ("packing", "pack"),
    [(".zst", pack_zstd), (".bz2", bz2.compress), (".xz", lzma.compress), (".GZ", gzip.compress)],
)
def test_a_packed_file_gives_the_rows_of_the_plain_one(
    tmp_path: Path, ending: str, packing: str, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"rows{ending}"
    write(path, source_rows("one", "zwei, drei"))
    packed = Path(f"{path}{packing}")
    packed.write_bytes(pack(path.read_bytes()))
    assert texts(read_source(source(packed))) == ["one", "zwei, drei"]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes a table as its users do: what is missing is null, or nothing at all in CSV."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            mark = "\t" if path.suffix == ".tsv" else ","
            writer = csv.DictWriter(file, list(rows[0]), delimiter=mark)
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".json":
        path.write_text(json.dumps({"about": {"n": 1}, "rows": rows}, indent=1))
    else:
        jsonl(path, rows)


LABELS = st.one_of(
    st.lists(st.integers(-(10**6), 10**6), min_size=1),
    st.lists(st.one_of(st.integers(-99, 10**17), st.just(math.nan)).map(float), min_size=1),
    st.lists(st.floats(-1e6, 1e6), min_size=1),
    st.lists(st.one_of(st.booleans(), st.none()), min_size=1),
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r")), min_size=1),
    st.lists(
        st.sampled_from(["True", "1.0", "nan", "1", "None", "null", "2024-01-01"]), min_size=1
    ),
)


@given(LABELS)
@settings(max_examples=40)
def test_a_table_has_the_same_labels_whatever_it_is_saved_as(
    tmp_path_factory: pytest.TempPathFactory, labels: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    rows = [{"prompt": f"p{number}", "label": label} for number, label in enumerate(labels)]
    found = []
    for ending in (".csv", ".tsv", ".json", ".jsonl", ".parquet"):
        write(folder / f"rows{ending}", rows)
        read = read_source(source(folder / f"rows{ending}", category="label", metadata=["prompt"]))
        found.append([(row.messages, row.categories, row.metadata) for row in read])
    assert found == [found[0]] * 5
    assert len(found[0]) == len(labels)


def test_a_gap_in_whole_numbers_neither_changes_them_nor_becomes_a_label(tmp_path: Path) -> None:
    table = pa.table(
        {"prompt": ["a", "b", "c"], "cat": [1.0, 2.0, math.nan], "is": [True, False, None]}
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    chosen = source(
        tmp_path / "rows.parquet",
        category="cat",
        category_map={"1": "boats", "2": "bread"},
        ideal_response="is",
        ideal_response_map={"true": "comply", "false": "refuse"},
        metadata=["is", "cat"],
    )
    rows = list(read_source(chosen))
    assert [row.categories for row in rows] == [["boats"], ["bread"], []]
    assert [row.ideal_response for row in rows] == ["comply", "refuse", None]
    assert [row.metadata for row in rows] == [["true", "1"], ["false", "2"], []]


def test_a_label_is_found_by_its_exact_text_before_any_other_spelling(tmp_path: Path) -> None:
    rows = [{"prompt": str(label), "c": label} for label in ("True", True, "1.0", 1, "nan", "None")]
    path = jsonl(tmp_path / "rows.jsonl", rows)
    meanings = {"True": "boats", "1": "bread", "nan": "fish", "None": "cloth"}
    found = read_source(source(path, category="c", category_map=meanings))
    assert [row.categories for row in found] == [
        *[["boats"]] * 2,
        *[["bread"]] * 2,
        ["fish"],
        ["cloth"],
    ]


# Columns.


@pytest.mark.parametrize(
    ("name", "content", "column"),
    [
        ("rows.csv", "prompt,label,label\nHello,first,second\n", "label"),
        ("rows.csv", "prompt,prompt\na,b\n", "prompt"),
        ("rows.csv", "column_2,\na,b\n", "column_2"),
        ("rows.jsonl", '{"prompt": "a", "prompt": "b"}', "prompt"),
        (
            "rows.jsonl",
            '{"messages": [{"role": "user", "content": "a", "content": "b"}]}',
            "content",
        ),
        ("rows.json", '[{"prompt": "a", "prompt": "b"}]', "prompt"),
        ("rows.json", '{"rows": [{"prompt": "a"}], "rows": []}', "rows"),
    ],
)
def test_a_column_that_stands_twice_is_refused(
    tmp_path: Path, name: str, content: str, column: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name}:1: column '{column}' stands twice; "):
        list(read_source(source(tmp_path / name, categories=["boats"])))


def test_a_parquet_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    columns = [pa.array(["a"]), pa.array(["b"])]
    table = pa.Table.from_arrays(columns, names=["prompt", "prompt"])
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"rows.parquet: column 'prompt' stands twice; rename"):
        list(read_source(source(tmp_path / "rows.parquet", categories=["boats"])))


def test_csv_has_the_delimiter_of_the_source_and_columns_without_a_name_have_numbers(
    tmp_path: Path,
) -> None:
    (tmp_path / "rows.csv").write_text(';category;\n0;boats;"Where; to?"\n')
    chosen = source(tmp_path / "rows.csv", delimiter=";", prompt="column_3")
    [row] = read_source(chosen)
    assert (texts([row]), row.categories) == (["Where; to?"], ["boats"])


def test_a_key_that_comes_late_in_a_file_is_a_column(tmp_path: Path) -> None:
    rows = [{"prompt": f"row {number}"} for number in range(1200)]
    path = jsonl(tmp_path / "rows.jsonl", [*rows, {"prompt": "last", "category": "boats"}])
    *_, last = read_source(source(path))
    assert last.categories == ["boats"]
    with pytest.raises(ValueError, match="no column 'kind'; its columns are prompt, category"):
        list(read_source(source(path, category="kind")))


# JSON.


def test_a_line_that_is_a_list_of_turns_is_a_chat(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hello"}]
    for name in ("chats.jsonl", "chats.json"):
        path = jsonl(tmp_path / name, [turns, [*turns, {"role": "user", "content": "Well?"}]])
        assert texts(read_source(source(path, categories=["boats"]))) == ["Hello", "Well?"]
    for name in ("one.jsonl", "one.json"):
        path = jsonl(tmp_path / name, [turns])
        assert texts(read_source(source(path, categories=["boats"]))) == ["Hello"]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_file_that_is_one_row_is_read_whatever_its_lines(
    tmp_path: Path, indent: int | None
) -> None:
    chat = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    for row in (chat, {"id": 7, "messages": chat}, {"prompt": "Hello", "tags": ["a"]}):
        (tmp_path / "row.json").write_text(json.dumps(row, indent=indent))
        assert texts(read_source(source(tmp_path, categories=["boats"]))) == ["Hello"]


def test_rows_with_a_column_named_role_are_rows(tmp_path: Path) -> None:
    rows = [{"role": "sailor", "content": "x", **row} for row in source_rows("one", "two")]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    assert texts(read_source(source(tmp_path / "rows.json"))) == ["one", "two"]
    (tmp_path / "rows.json").write_text(json.dumps([{"role": "user", "content": "one"}] * 2))
    chosen = source(tmp_path / "rows.json", prompt="content", categories=["boats"])
    assert texts(read_source(chosen)) == ["one", "one"]


def test_a_json_file_with_a_value_a_line_is_read_as_lines(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.json", source_rows("one", "two"))
    assert texts(read_source(source(path))) == ["one", "two"]
    alone = jsonl(tmp_path / "row.json", [{"prompt": "one", "category": "boats", "tags": ["a"]}])
    assert texts(read_source(source(alone))) == ["one"]


def test_a_document_is_read_whatever_its_form(tmp_path: Path) -> None:
    rows = [{**row, "note": '{[\\"' * 9} for row in source_rows(*map(str, range(3000)))]
    path = tmp_path / "rows.json"
    for data in (rows, {"rows": rows}, {"n": 12, "t": "x" * 70_000, "rows": rows, "last": None}):
        for indent in (None, 2):
            path.write_text(json.dumps(data, indent=indent))
            assert texts(read_source(source(path))) == [row["prompt"] for row in rows]
    path.write_text(json.dumps({"other": rows[:2], "rows": rows[2:5], "n": 1.5}))
    assert texts(read_source(source(path, rows_key="rows"))) == ["2", "3", "4"]
    with pytest.raises(ValueError, match=r": 2 keys of the object hold lists \(other, rows\)"):
        list(read_source(source(path)))
    with pytest.raises(ValueError, match=r"rows_key is 'row', and 2 keys .* \(other, rows\); say"):
        list(read_source(source(path, rows_key="row")))


def test_a_fault_late_in_a_long_document_is_told_with_its_line(tmp_path: Path) -> None:
    lines = [json.dumps(row) + "," for row in source_rows(*map(str, range(5000)))]
    (tmp_path / "rows.json").write_text("\n".join(["[", *lines, '{"prompt": tru}', "]"]))
    with pytest.raises(ValueError, match=r"rows\.json:5002: not JSON \(Expecting value\)"):
        list(read_source(source(tmp_path / "rows.json")))


def test_the_place_of_a_row_is_its_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt,category\n"one\ntwo",boats\n\n,boats\n')
    (tmp_path / "b.json").write_text('[\n{"prompt": "a",\n"category": "c"},\n{"prompt": ""}]')
    jsonl(tmp_path / "c.jsonl", source_rows("a", "b"))
    places = [row.place.removeprefix(f"{tmp_path}/") for row in read_source(source(tmp_path))]
    assert places == ["a.csv:2", "a.csv:5", "b.json:2", "b.json:4", "c.jsonl:1", "c.jsonl:2"]


# Limits.


def packed_text(parts: list[str]) -> bytes:
    target = io.BytesIO()
    with gzip.open(target, "wb", compresslevel=1) as file:
        for part in parts:
            file.write(part.encode())
    return target.getvalue()


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("rows.jsonl.gz", '{"prompt": "a", "category": "boats"}\n{"prompt": "', '"}\n'),
        ("rows.csv.gz", 'prompt,category\na,boats\n"', '",boats\n'),
        ("rows.json.gz", '[{"prompt": "a", "category": "boats"},\n{"prompt": "', '"}]'),
        ("rows.json.gz", '{"rows":\n{"prompt": "', '"}}'),
    ],
)
def test_a_row_that_is_too_long_is_refused_with_its_line_and_in_little_memory(
    tmp_path: Path, name: str, before: str, after: str
) -> None:
    filling = "x" * 1023 + ("\n" if ".csv" in name else "x")
    content = packed_text([before, *[filling * 2**10] * 50, after])
    (tmp_path / name).write_bytes(content)
    tracemalloc.start()
    with pytest.raises(ValueError, match=rf"{name}:[23]: a row of more than 1,000,000 bytes; "):
        list(read_source(source(tmp_path / name, max_row_bytes=1_000_000)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000
    assert len(content) < 500_000


def test_a_row_of_exactly_the_limit_is_read_from_every_kind_of_text(tmp_path: Path) -> None:
    row = json.dumps({"prompt": "é" * 100}, ensure_ascii=False)
    limit = len(row.encode())
    (tmp_path / "a.jsonl").write_text(row + "\r\n", newline="")
    (tmp_path / "b.json").write_text(f"[{row}]")
    (tmp_path / "c.csv").write_text("prompt\r\n" + "é" * (limit // 2) + "\r\n", newline="")
    for path in sorted(tmp_path.iterdir()):
        chosen = source(path, categories=["boats"], max_row_bytes=limit)
        assert len(list(read_source(chosen))) == 1
        with pytest.raises(ValueError, match="max_row_bytes"):
            list(read_source(chosen.model_copy(update={"max_row_bytes": limit - 2})))


def test_a_parquet_row_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = source_rows("short", "x" * 5000, "short")
    pq.write_table(pa.Table.from_pylist([{**row, "image": "i" * 99_999} for row in rows]), path)
    assert len(list(read_source(source(path, max_row_bytes=5100)))) == 3
    with pytest.raises(ValueError, match=r"rows\.parquet:2: a row of more than 3,000 bytes"):
        list(read_source(source(path, max_row_bytes=3000)))
    with pytest.raises(ValueError, match=r"rows\.parquet:1: a row of more than 900 bytes"):
        list(read_source(source(path, max_row_bytes=900)))


def test_what_parquet_cannot_give_is_refused_with_the_path(tmp_path: Path) -> None:
    deep, kind = "x", pa.string()
    for _ in range(60):
        deep, kind = [deep], pa.list_(kind)  # type: ignore[assignment]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": ["a"], "deep": pa.array([deep], kind)}), path)
    with pytest.raises(ValueError, match=r"rows\.parquet: not Parquet .*nested.*; fetch or write"):
        list(read_source(source(path, categories=["boats"])))
    text = pa.array([b"\xff"]).cast(pa.string(), safe=False)
    pq.write_table(pa.table({"prompt": text}), path)
    with pytest.raises(ValueError, match=r"rows\.parquet: not "):
        list(read_source(source(path, categories=["boats"])))


def test_many_long_rows_are_read_in_the_memory_of_few(tmp_path: Path) -> None:
    row = json.dumps({"prompt": "x" * 100_000, "category": "boats"}) + "\n"
    (tmp_path / "rows.jsonl.gz").write_bytes(packed_text([row] * 100))
    tracemalloc.start()
    assert sum(1 for _ in read_source(source(tmp_path / "rows.jsonl.gz"))) == 100
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_lines_before_the_header_of_csv_are_told_and_skipped(tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_text('"Export; of ""May""",\n\nprompt,category\nMay I row?,boats\nAnd sail?,boats\n')
    with pytest.raises(ValueError, match=r"has no column 'category'; .*set skip_lines = 2: line 3"):
        list(read_source(source(path)))
    rows = list(read_source(source(path, skip_lines=2)))
    assert texts(rows) == ["May I row?", "And sail?"]
    assert rows[0].place == f"{path}:4"


@pytest.mark.parametrize(
    "written", ["['boats', 'fish']", '["boats", "fish"]', "[\n'boats' ,'fish']"]
)
def test_a_list_of_labels_may_be_written_as_text(tmp_path: Path, written: str) -> None:
    path = tmp_path / "rows.csv"
    quoted = written.replace('"', '""')
    path.write_text(f'prompt,category\nMay I row?,"{quoted}"\nAnd?,[boats]\n')
    first, second = read_source(source(path))
    assert (first.categories, second.categories) == (["boats", "fish"], ["[boats]"])
    mapped = source(path, category_map={written: "ponds", "boats": "fish"})
    assert next(iter(read_source(mapped))).categories == ["ponds"]
