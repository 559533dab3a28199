"""Answers as JSON, CSV and Parquet hold what the query gave."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.warehouse.test_catalog import write_small_warehouse
from warehouse.answers import Kind, export, write
from warehouse.catalog import connect
from warehouse.files import OutputError, require_folder, write_whole
from warehouse.home import Home


def written(query: str, kind: Kind, **parameters: Any) -> bytes:
    out = io.BytesIO()
    rows = duckdb.connect().sql(query, params=parameters or None)
    assert rows is not None
    write(rows.to_arrow_reader(2), out, kind)
    return out.getvalue()


def test_json_is_one_valid_array_with_exact_values() -> None:
    query = """
        SELECT 1 AS a, 2 AS a, 'nan'::DOUBLE AS nan, '-inf'::FLOAT AS inf,
            2::HUGEINT ** 100 AS huge,
            18446744073709551615::UBIGINT AS big, 1.25::DECIMAL(9, 2) AS exact,
            12345678901234567890.5::DECIMAL(30, 1) AS long,
            TIMESTAMPTZ '2026-01-02 03:04:05Z' AS at,
            DATE '2026-01-02' AS day, INTERVAL 90 SECONDS AS took, 'x'::BLOB AS bytes,
            {'a': [1, NULL], 'b': {'c': 'nan'::DOUBLE}} AS nested,
            MAP {'k': 1} AS map, NULL AS none,
            chr(27) || chr(155) || chr(8238) AS control, TIMESTAMP 'infinity' AS never
    """
    text = written(query, "json").decode()
    assert not any(character in text for character in "\x1b\x9b\u202e")
    [row] = json.loads(text, parse_constant=pytest.fail)
    assert int(row.pop("huge")) == 2**100 and "out of range" in row.pop("never")
    assert row == {
        "a": 1,
        "a_1": 2,
        "nan": None,
        "inf": None,
        "big": 2**64 - 1,
        "exact": 1.25,
        "long": "12345678901234567890.5",
        "at": "2026-01-02T03:04:05+00:00",
        "day": "2026-01-02",
        "took": "P0M0DT90S",
        "bytes": "eA==",
        "nested": {"a": [1, None], "b": {"c": None}},
        "map": {"k": 1},
        "none": None,
        "control": "\x1b\x9b\u202e",
    }


@pytest.mark.parametrize("num_rows", [0, 1, 2, 5])
def test_every_number_of_rows_is_valid_in_every_format(num_rows: int) -> None:
    query = f"SELECT range AS n, [range] AS many FROM range({num_rows})"
    rows = [{"n": n, "many": [n]} for n in range(num_rows)]
    assert json.loads(written(query, "json")) == rows
    assert [json.loads(line) for line in written(query, "jsonl").splitlines()] == rows
    assert pq.read_table(io.BytesIO(written(query, "parquet"))).to_pylist() == rows
    lines = list(csv.DictReader(io.StringIO(written(query, "csv").decode())))
    assert [int(line["n"]) for line in lines] == list(range(num_rows))
    assert [json.loads(line["many"]) for line in lines] == [row["many"] for row in rows]


@given(
    st.text(alphabet=st.one_of(st.characters(codec="utf-8"), st.sampled_from("=+-@\t\r\n'\"\x1b")))
)
@example("=1+1")
@example("\r=1")
@example("＝1")
def test_no_text_in_csv_is_a_formula_or_a_control(text: str) -> None:
    lines = written("SELECT $text::VARCHAR AS t", "csv", text=text).decode()
    _, row = csv.reader(io.StringIO(lines, newline=""))
    [cell] = row
    assert not any(ord(sign) < 32 and sign not in "\n\t" for sign in cell)
    if cell.startswith(tuple("=+-@\t＝")):
        float(cell)
    if not text.startswith(tuple("=+-@\t\r\n＝＋－＠")) and text.isprintable():
        assert cell == text


def test_numbers_stay_numbers_in_csv_and_null_differs_from_an_empty_text() -> None:
    query = """
        SELECT -5 AS "=n", -1.5::DECIMAL(4, 1) AS d, '-5' AS t, NULL::VARCHAR AS u, '' AS e
    """
    head, line = written(query, "csv").decode().splitlines()
    assert line == '-5,-1.5,"-5",,""'
    assert head.startswith('"\'=n"')


def test_parquet_keeps_values_as_they_are() -> None:
    query = "SELECT 'nan'::DOUBLE AS n, '=1' AS f, 2::HUGEINT ** 100 AS h, INTERVAL 1 DAY AS i"
    [row] = pq.read_table(io.BytesIO(written(query, "parquet"))).to_pylist()
    assert math.isnan(row["n"]) and row["f"] == "=1" and int(row["h"]) == 2**100


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "json", "csv"])
def test_export_replaces_no_file_without_a_word(disk: Home, tmp_path: Path, ending: str) -> None:
    write_small_warehouse(disk)
    out = tmp_path / f"rows.{ending}"
    out.write_text("mine")
    with pytest.raises(OutputError, match=r"is there already; .*--force"):
        export(connect(disk), "worst", str(out))
    assert out.read_text() == "mine"
    assert export(connect(disk), "worst", str(out), replace=True) == 3
    assert out.read_bytes() != b"mine"
    assert {path.name for path in tmp_path.iterdir()} == {"home", out.name}


@pytest.mark.parametrize("name", ["none/rows.csv", "file/rows.csv", "folder.csv"])
def test_place_that_takes_no_file_is_told_by_its_own_name(
    disk: Home, tmp_path: Path, name: str
) -> None:
    write_small_warehouse(disk)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.csv").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError) as refusal:
        export(connect(disk), "funnel", str(tmp_path / name))
    assert str(tmp_path / name) in str(refusal.value) and "partial" not in str(refusal.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_interrupted_writer_leaves_nothing_and_a_file_made_meanwhile_stays(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    with pytest.raises(KeyboardInterrupt), write_whole(out, replace=False) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError), write_whole(out, replace=False) as partial:
        partial.write_text("ours")
        out.write_text("theirs")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["theirs"]


def test_folder_that_cannot_hold_files_is_told_and_a_new_one_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot be written .*; give another folder"):
        require_folder(tmp_path / "file")
    require_folder(tmp_path / "new" / "report")
    assert list((tmp_path / "new" / "report").iterdir()) == []
