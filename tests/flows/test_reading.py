"""Commands that read: what they refuse, what they tell, and how they hand rows over."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.__main__ import app
from tests.flows.test_command_line import home, invoke
from tests.warehouse.test_catalog import write_small_warehouse
from warehouse.home import Home

__all__ = ["home"]

READERS = [
    ("status",),
    ("ask", "funnel"),
    ("sql", "from completions"),
    ("views",),
    ("show", "c1"),
    ("report",),
    ("diff", "a", "b"),
    ("export", "funnel", "rows.csv"),
    ("compact",),
]


@pytest.mark.parametrize("command", READERS, ids=lambda command: command[0])
@pytest.mark.parametrize("place", ["none", "file", "other"])
def test_place_that_is_no_warehouse_is_told_and_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "other" / "photos").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = invoke(*command, "--home", str(tmp_path / place))
    assert (code, out) == (2, "")
    assert err.startswith("precept: there is no warehouse") and err.count("\n") == 1
    assert str(tmp_path / place) in err
    assert sorted(tmp_path.rglob("*")) == before


def test_writing_command_tells_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, out, err = invoke("refresh", "harbour", "--home", str(tmp_path / "file" / "wh"))
    assert (code, out) == (2, "")
    assert err.startswith("precept: no warehouse can be made") and err.count("\n") == 1
    code, _, err = invoke("init", str(tmp_path / "file" / "project"))
    assert code == 2 and f"{tmp_path}/file" in err and err.count("\n") == 1


def test_foreign_and_cut_files_are_told_by_each_reader_and_moved_by_none(home: str) -> None:
    [shard] = Path(home, "completions").glob("*.parquet")
    planted = shard.with_name("extra.parquet")
    planted.write_bytes(shard.read_bytes())
    [judged] = Path(home, "judgements").glob("*.parquet")
    judged.write_bytes(judged.read_bytes()[:-7])
    for command in (("ask", "funnel"), ("sql", "from completions"), ("status",), ("show", "c1")):
        code, out, err = invoke(*command, "--home", home)
        assert code == 0 and out
        assert sorted(line.split("/")[0] for line in err.splitlines()) == [
            "precept: 1 file in completions",
            "precept: 1 file in judgements",
        ]
        assert "extra.parquet" in err and judged.name in err and "doctor --mend" in err
    code, out, _ = invoke("status", "--home", home, "--json")
    assert [row["table"] for row in json.loads(out)["unread_files"]] == [
        "completions",
        "judgements",
    ]
    code, out, _ = invoke("doctor", "--home", home)
    assert code == 1 and "extra.parquet" in out and planted.exists() and judged.exists()
    code, out, _ = invoke("doctor", "--home", home, "--mend")
    assert code == 1 and not planted.exists() and not judged.exists()
    _, _, err = invoke("ask", "funnel", "--home", home)
    assert err == ""


def test_doctor_makes_nothing(tmp_path: Path) -> None:
    place = tmp_path / "new" / "home"
    _, out, _ = invoke("doctor", "--home", str(place))
    assert "is not there yet" in out and "precept refresh makes one" in out
    assert list(tmp_path.iterdir()) == []


def test_rows_are_printed_in_each_format(home: str) -> None:
    query = ("sql", "select completion_id, cited from completions order by 1", "--home", home)
    rows = [
        {"completion_id": "c1", "cited": ["B1"]},
        {"completion_id": "c2", "cited": ["B1"]},
    ]
    assert json.loads(invoke(*query, "--json")[1]) == rows
    assert json.loads(invoke(*query, "--format", "json", "--limit", "1")[1]) == rows[:1]
    assert json.loads(invoke(*query, "--format", "json", "--limit", "0")[1]) == []
    assert invoke(*query, "--format", "csv")[1].splitlines()[1] == '"c1","[""B1""]"'
    result = CliRunner().invoke(app, [*query, "--format", "parquet"])
    assert pq.read_table(io.BytesIO(result.stdout_bytes)).to_pylist() == rows
    assert "c1" in invoke(*query)[1]
    code, out, _ = invoke("ask", "funnel", "--home", home, "--format", "csv", "--limit", "2")
    assert code == 0 and len(out.splitlines()) == 3


def test_query_comes_from_an_argument_a_file_or_stdin(home: str, tmp_path: Path) -> None:
    file = tmp_path / "query.sql"
    file.write_text("select 7 as n;")
    options = ("--home", home, "--json")
    assert json.loads(invoke("sql", "-f", str(file), *options)[1]) == [{"n": 7}]
    for arguments in (["sql", "-"], ["sql"], ["sql", "-f", "-"]):
        result = CliRunner().invoke(app, [*arguments, *options], input="select 8 as n")
        assert json.loads(result.stdout) == [{"n": 8}]
    for arguments, sentence in (
        (("sql", ""), "there is no statement to run"),
        (("sql", "-f", str(tmp_path / "none.sql")), "No such file"),
        (("sql", "select 1", "-f", str(file)), "give one of them"),
        (("sql", "copy completions to 'x.csv'"), "COPY is refused"),
        (("sql", "select 1; select 2"), "2 statements"),
    ):
        code, out, err = invoke(*arguments, *options)
        assert (code, out) == (2, "") and sentence in err and err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["table", "json", "csv", "parquet"])
def test_closed_pipe_is_no_fault(tmp_path: Path, kind: str) -> None:
    place = Home(str(tmp_path / "home"))
    write_small_warehouse(place)
    query = "select range as n, repeat('x', 100) as text from range(20000)"
    arguments = [sys.executable, "-m", "flows", "sql", query, "--home", place.url, "--format", kind]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        assert process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize("arguments", [["--help"], [], ["policies", "--help"]])
def test_closed_pipe_is_no_fault_of_help(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "flows", *arguments]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_export_needs_force_to_replace_a_file(home: str, tmp_path: Path) -> None:
    out = str(tmp_path / "rows.csv")
    assert invoke("export", "funnel", out, "--home", home)[0] == 0
    code, _, err = invoke("export", "funnel", out, "--home", home)
    assert code == 2 and "--force" in err
    assert invoke("export", "funnel", out, "--home", home, "--force")[0] == 0
