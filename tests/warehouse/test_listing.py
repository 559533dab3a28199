"""Only shards that Precept wrote are read, wherever the warehouse lies; all else is named."""

import logging
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.rows import completion, judgement, later, prompt, run
from tests.warehouse.test_catalog import write_small_warehouse
from warehouse.catalog import (
    ask,
    connect,
    query_names,
    read,
    show_prompts_of,
    unread_files,
)
from warehouse.home import Home, ShardError
from warehouse.listing import tell_strays
from warehouse.shards import list_shards, to_arrow, write_shard
from warehouse.tables import COMPLETIONS, JUDGEMENTS, PROMPTS, RUNS, TABLES, content_id
from warehouse.upkeep import compact, damage_named, examine, mend


def sound_bytes(*rows: Any) -> bytes:
    """Returns what a program that knows our columns would write."""
    sink = pa.BufferOutputStream()
    pq.write_table(to_arrow(COMPLETIONS, rows), sink)
    return bytes(sink.getvalue().to_pybytes())


def copied(home: Home) -> bytes:
    [path] = list_shards(home, COMPLETIONS)
    return bytes(home.files.cat_file(path))


def edited(home: Home) -> bytes:
    """Returns a shard to which a row was added by a program that keeps the footer's metadata."""
    [path] = list_shards(home, COMPLETIONS)
    with home.files.open(path, "rb") as file:
        data = pq.read_table(file)
    sink = pa.BufferOutputStream()
    more = to_arrow(COMPLETIONS, [completion("forged")]).cast(data.schema)
    pq.write_table(pa.concat_tables([data, more]), sink)
    return bytes(sink.getvalue().to_pybytes())


FOREIGN: dict[str, tuple[str, Callable[[Home], bytes]]] = {
    "right columns, other name": ("extra.parquet", lambda home: sound_bytes(completion("forged"))),
    "right columns, name of a hash": (
        f"{content_id('x')}.parquet",
        lambda home: sound_bytes(completion("forged")),
    ),
    "copy under another name": (f"{content_id('y')}.parquet", copied),
    "copy with an edit": (f"{content_id('z')}.parquet", edited),
    "first in the alphabet": ("0" * 32 + ".parquet", lambda home: sound_bytes(completion("f"))),
    "name in capitals": (f"{content_id('x').upper()}.parquet", copied),
    "cut": (f"{content_id('c')}.parquet", lambda home: copied(home)[:-5]),
    "empty": (f"{content_id('e')}.parquet", lambda home: b""),
    "text": ("notes.txt", lambda home: b"mine"),
    "in a folder": ("backup/one.parquet", copied),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_file_that_precept_did_not_write_is_not_read_but_named_and_set_aside(
    home: Home, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_shard(home, COMPLETIONS, [completion("ours")])
    name, content = FOREIGN[kind]
    planted = f"{home.folder(COMPLETIONS)}/{name}"
    data = content(home)
    home.files.makedirs(planted.rsplit("/", 1)[0], exist_ok=True)
    home.files.pipe_file(planted, data)
    top = name.split("/")[0]

    with caplog.at_level(logging.WARNING):
        connection = connect(home)
    rows = connection.sql("SELECT completion_id FROM completions_raw").fetchall()
    assert rows == [("ours",)]
    [stray] = unread_files(connection)
    assert (stray.table, stray.name) == ("completions", top)
    [told] = caplog.messages
    assert told.startswith("1 file in completions/ is no shard of Precept's")
    assert top in told and "precept doctor --mend" in told

    assert [found.name for found in examine(home, deep=True)] == [top]
    assert home.files.exists(planted)
    [moved] = mend(home, deep=True, every_file=True)
    assert not home.files.exists(planted) and home.files.exists(moved.moved_to)
    assert unread_files(connect(home)) == []


def test_link_to_a_sound_shard_is_not_read(disk: Home, tmp_path: Path) -> None:
    path = write_shard(disk, COMPLETIONS, [completion("ours")])
    assert path is not None
    elsewhere = shutil.move(path, tmp_path)
    Path(path).symlink_to(elsewhere)
    connection = connect(disk)
    assert connection.sql("FROM completions_raw").fetchall() == []
    [stray] = unread_files(connection)
    assert stray.reason == "a symbolic link"
    [moved] = mend(disk)
    assert os.path.islink(moved.moved_to) and Path(elsewhere).is_file()


def test_rows_that_are_not_those_of_the_name_are_found_by_doctor(home: Home) -> None:
    write_shard(home, COMPLETIONS, [completion("ours")])
    [path] = list_shards(home, COMPLETIONS)
    home.files.pipe_file(path, edited(home))
    assert examine(home) == []
    [stray] = examine(home, deep=True)
    assert stray.path == path and stray.reason == "rows that are not those of its name"


def test_what_was_set_aside_before_stays(disk: Home) -> None:
    for text in ("first", "second"):
        path = write_shard(disk, COMPLETIONS, [completion("c", answer=text)])
        assert path is not None
        Path(path).write_bytes(text.encode())
        mend(disk)
    aside = sorted(file.read_bytes() for file in Path(disk.root, "damaged").iterdir())
    assert aside == [b"first", b"second"]


def test_compaction_leaves_damaged_shards_alone(disk: Home) -> None:
    texts = [random.Random(number).randbytes(2000).hex() for number in range(3)]
    paths = [
        write_shard(disk, COMPLETIONS, [completion(f"c{number}", answer=text)])
        for number, text in enumerate(texts)
    ]
    damaged = Path(str(paths[0]))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(content)
    assert compact(disk, COMPLETIONS) == (3, 2)
    assert damaged.read_bytes() == content
    assert [stray.path for stray in examine(disk, deep=True)] == [str(damaged)]


@pytest.mark.slow
def test_damage_that_a_query_meets_is_named_and_a_fault_of_the_query_is_not(disk: Home) -> None:
    path = write_shard(disk, COMPLETIONS, [completion("c", answer="word " * 5000)])
    content = bytearray(Path(str(path)).read_bytes())
    sound = bytes(content)
    found = 0
    for position in range(4, len(content) // 2, 61):
        Path(str(path)).write_bytes(sound[:position] + b"\xff" * 40 + sound[position + 40 :])
        try:
            with damage_named(disk):
                connect(disk).sql("FROM completions_raw").to_arrow_table().to_pylist()
        except ShardError as error:
            found += 1
            assert Path(str(path)).name in str(error) and "doctor --mend" in str(error)
    assert found > 5
    with pytest.raises(duckdb.BinderException), damage_named(disk):
        connect(disk).sql("SELECT nothing FROM completions_raw")


def answers(home: Home) -> dict[str, Any]:
    connection = connect(home)
    told = {name: ask(connection, name).to_pylist() for name in query_names()}
    for table in TABLES.values():
        told[table.name] = connection.sql(f"FROM {table.name} ORDER BY ALL").to_arrow_table()
    return told


@pytest.mark.slow
def test_folders_named_key_value_change_no_answer(home: Home) -> None:
    named = "status=ok/run_id=7/env=prod/completion_id=x/created_at=2020/score=3"
    hostile = "it's=a/[b]=c/*=d/model=__HIVE_DEFAULT_PARTITION__"
    below = Home(f"{home.url}/{named}/{hostile}/wh")
    for place in (home, below):
        write_small_warehouse(place)
    expected = answers(home)
    assert answers(below) == expected
    assert connect(below).table("shards").columns == ["kind", "row_id", "shard"]
    assert mend(below, deep=True, every_file=True) == []
    for table in TABLES.values():
        compact(below, table)
    assert answers(below) == expected


def test_prompts_of_another_warehouse_keep_their_columns(tmp_path: Path) -> None:
    here, other = Home(str(tmp_path / "wh")), Home(str(tmp_path / "[1]/source=x/wh"))
    write_shard(here, PROMPTS, [prompt("one")])
    write_shard(other, PROMPTS, [prompt("two")])
    connection = connect(here)
    show_prompts_of(connection, other)
    assert connection.table("prompts").columns == PROMPTS.schema.names
    assert connection.sql("SELECT DISTINCT source FROM prompts").fetchall() == [("hand",)]


def test_usage_counts_engines_once_and_the_rows_of_a_run_that_was_killed(disk: Home) -> None:
    figures = (
        '{"stages": {"generate": {"table": "completions", "num_rows": 1, "seconds": 2.0, '
        '"num_gpus": 0, "usage": {"prompt_tokens": 9, "cached_tokens": 4, "output_tokens": 7}}}}'
    )
    write_shard(disk, RUNS, [run("r1", figures=figures), run("r2", started_at=later(1))])
    rows = [
        completion("a", run_id="r1"),
        completion("b", run_id="r2", num_prompt_tokens=5, num_reasoning_tokens=2),
    ]
    write_shard(disk, COMPLETIONS, rows)
    write_shard(disk, COMPLETIONS, [*rows, completion("b", run_id="r2", attempt=1)])
    write_shard(disk, JUDGEMENTS, [judgement("a", 0, 9.0, run_id="r1", num_output_tokens=3)])
    query = """
        SELECT run_id, table_name, num_rows, prompt_tokens, output_tokens, counted_by
        FROM usage ORDER BY ALL
    """
    assert read(connect(disk), query).fetchall() == [
        ("r1", "completions", 1, 9, 7, "engines"),
        ("r1", "judgements", 1, 1, 3, "rows"),
        ("r2", "completions", 2, 6, 5, "rows"),
    ]


def test_accepted_completions_stand_in_a_view(disk: Home) -> None:
    write_small_warehouse(disk)
    connection = connect(disk)
    assert read(connection, "SELECT completion_id FROM accepted").fetchall() == [("good",)]
    query = "SELECT completion_id FROM verdicts WHERE accepted"
    assert read(connection, query).fetchall() == [("good",)]


def test_names_that_are_no_text_are_told_and_set_aside(disk: Home) -> None:
    write_shard(disk, COMPLETIONS, [completion("ours")])
    for name in (b"\xff.parquet", b"a\x1b[2J\n.parquet"):
        Path(os.fsdecode(os.fsencode(disk.folder(COMPLETIONS)) + b"/" + name)).write_bytes(b"")
    connection = connect(disk)
    assert len(connection.sql("FROM completions_raw").fetchall()) == 1
    assert len(unread_files(connection)) == 2
    [told] = tell_strays(examine(disk))
    assert told.isprintable() and told.isascii()
    assert len(mend(disk)) == 2
