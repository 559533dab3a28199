"""Shards appear whole or not at all, on a disk and on an object store alike."""

import os
import random
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rows import completion, judgement, later, prompt
from warehouse.catalog import check_version, connect
from warehouse.home import Home, ShardError
from warehouse.shards import list_shards, to_arrow, write_shard
from warehouse.tables import (
    COMPLETIONS,
    EVALUATIONS,
    JUDGEMENTS,
    PROMPTS,
    TABLES,
    Prompt,
    Table,
    Turn,
    columns,
)
from warehouse.upkeep import compact, mend


def read(home: Home, path: str) -> list[dict[str, Any]]:
    with home.files.open(path, "rb") as file:
        rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return rows


def read_all(home: Home, table: Table) -> list[dict[str, Any]]:
    return [row for path in list_shards(home, table) for row in read(home, path)]


def prompt_ids(home: Home) -> list[str]:
    """Returns the ids of prompts that a view shows."""
    rows = connect(home).sql("SELECT prompt_id FROM prompts ORDER BY prompt_id").fetchall()
    return [row[0] for row in rows]


def files_under(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def ids_of(*rows: Prompt) -> list[str]:
    return sorted(row.prompt_id for row in rows)


def test_rows_come_back_as_they_were_written(home: Home) -> None:
    rows = [prompt("may i row", transform="reversed", metadata=["x"]), prompt("zwölf 🐟\x00\n")]
    path = write_shard(home, PROMPTS, rows)
    assert path is not None and list_shards(home, PROMPTS) == [path]
    assert read(home, path) == to_arrow(PROMPTS, rows).to_pylist()
    with home.files.open(path, "rb") as file:
        schema = pq.read_schema(file)
    named = {**PROMPTS.schema.metadata, b"shard": Path(path).name.encode()}
    assert schema.equals(PROMPTS.schema.with_metadata(named), check_metadata=True)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_any_text_that_utf8_can_hold_survives(turns: list[tuple[str, str]]) -> None:
    messages = [Turn(role=role, content=content) for role, content in turns]
    row = prompt("x", messages=messages)
    [stored] = to_arrow(PROMPTS, [row]).to_pylist()
    assert stored["messages"] == [asdict(message) for message in messages]


def test_no_rows_make_no_shard(home: Home) -> None:
    assert write_shard(home, PROMPTS, []) is None
    assert list_shards(home, PROMPTS) == [] and prompt_ids(home) == []


def test_name_of_a_shard_follows_from_its_ids_in_any_order(home: Home) -> None:
    rows = [prompt("one"), prompt("two")]
    assert write_shard(home, PROMPTS, rows) == write_shard(home, PROMPTS, rows[::-1])
    assert write_shard(home, PROMPTS, rows[:1]) != write_shard(home, PROMPTS, rows[1:])
    first = write_shard(home, COMPLETIONS, [completion("c")])
    assert write_shard(home, COMPLETIONS, [completion("c", attempt=1)]) != first


def test_the_same_ids_written_again_keep_the_first_rows(home: Home) -> None:
    path = write_shard(home, PROMPTS, [prompt("one", source="first")])
    again = write_shard(home, PROMPTS, [prompt("one", source="second")])
    assert again == path
    assert [row["source"] for row in read_all(home, PROMPTS)] == ["first"]


def test_interrupted_write_leaves_no_shard(
    disk: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(source: str, target: str) -> None:
        assert os.path.exists(source) and list_shards(disk, PROMPTS) == []
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", killed)
    with pytest.raises(KeyboardInterrupt):
        write_shard(disk, PROMPTS, [prompt("one")])
    assert files_under(tmp_path) == []
    monkeypatch.undo()
    write_shard(disk, PROMPTS, [prompt("one")])
    assert prompt_ids(disk) == ids_of(prompt("one"))


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_raises_and_leaves_nothing(disk: Home, tmp_path: Path) -> None:
    long = random.Random(0).randbytes(100_000).hex()
    with largest_file(20_000), pytest.raises(OSError, match="File too large"):
        write_shard(disk, PROMPTS, [prompt(long)])
    assert files_under(tmp_path) == []


def test_readers_never_see_a_shard_that_is_being_written(disk: Home) -> None:
    write_shard(disk, PROMPTS, [prompt("one")])
    Path(disk.folder(PROMPTS), ".writing-abc").write_bytes(b"PAR1 half a shard")
    assert prompt_ids(disk) == ids_of(prompt("one"))
    assert mend(disk) == []


def test_files_of_killed_writers_are_swept_and_those_of_live_writers_stay(disk: Home) -> None:
    write_shard(disk, PROMPTS, [prompt("one")])
    old, new = (Path(disk.folder(PROMPTS), f".writing-{name}") for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    mend(disk)
    assert (old.exists(), new.exists()) == (False, True)


def truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def overwrite(content: bytes) -> bytes:
    return b"no Parquet" * 50


def empty(content: bytes) -> bytes:
    return b""


def other_table(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(to_arrow(COMPLETIONS, [completion("c")]), sink)
    return bytes(sink.getvalue().to_pybytes())


def other_version(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    data = to_arrow(PROMPTS, [prompt("one")])
    pq.write_table(data.replace_schema_metadata({"table": "prompts", "schema_version": "0"}), sink)
    return bytes(sink.getvalue().to_pybytes())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "Parquet"),
        (overwrite, "Parquet"),
        (empty, "Parquet"),
        (other_table, "not a shard of table prompts"),
    ],
)
def test_a_damaged_shard_is_named_and_set_aside_and_its_rows_can_be_made_again(
    home: Home, damage: Callable[[bytes], bytes], reason: str
) -> None:
    kept, lost = prompt("kept"), prompt("lost")
    write_shard(home, PROMPTS, [kept])
    path = write_shard(home, PROMPTS, [lost])
    assert path is not None
    home.files.pipe_file(path, damage(home.files.cat_file(path)))
    (damaged,) = mend(home)
    assert (damaged.table, damaged.path) == ("prompts", path)
    assert reason in damaged.reason
    assert home.files.exists(damaged.moved_to) and not home.files.exists(path)
    assert prompt_ids(home) == ids_of(kept)
    assert mend(home, deep=True) == []
    assert write_shard(home, PROMPTS, [lost]) == path
    assert prompt_ids(home) == ids_of(kept, lost)


def test_shard_of_another_version_is_refused_before_anything_moves(home: Home) -> None:
    damaged = write_shard(home, COMPLETIONS, [completion("c")])
    sound = write_shard(home, JUDGEMENTS, [judgement("c", 0, 9.0)])
    old = write_shard(home, PROMPTS, [prompt("old")])
    assert damaged and sound and old
    home.files.pipe_file(damaged, b"")
    home.files.pipe_file(old, other_version(b""))
    refused: list[Callable[[], object]] = [
        lambda: connect(home),
        lambda: check_version(home),
        lambda: mend(home),
        lambda: mend(home, deep=True),
        lambda: compact(home, PROMPTS),
    ]
    for call in refused:
        with pytest.raises(ShardError, match="was written with schema version 0"):
            call()
    assert all(home.files.exists(path) for path in (damaged, sound, old))


def test_shards_that_lack_a_column_are_refused_in_one_sentence_and_set_aside(disk: Home) -> None:
    write_shard(disk, JUDGEMENTS, [judgement("c", 0, 9.0)])
    [path] = list_shards(disk, JUDGEMENTS)
    pq.write_table(pq.read_table(path).drop_columns(["text_id", "reason"]), path)
    with pytest.raises(ShardError, match="table judgements lack text_id, reason; run precept doc"):
        connect(disk)
    [damaged] = mend(disk)
    assert damaged.path == path and connect(disk).table("judgements").fetchall() == []


def flip(home: Home, path: str, position: int) -> None:
    content = bytearray(home.files.cat_file(path))
    content[position] ^= 0xFF
    home.files.pipe_file(path, bytes(content))


def test_a_flipped_byte_in_the_middle_is_found_by_a_deep_mend(home: Home) -> None:
    text = random.Random(0).randbytes(5_000).hex()
    path = write_shard(home, PROMPTS, [prompt(text)])
    assert path is not None
    assert mend(home, deep=True) == []
    flip(home, path, home.files.size(path) // 2)
    assert mend(home) == []
    (damaged,) = mend(home, deep=True)
    assert "CRC" in damaged.reason or "checksum" in damaged.reason


def test_flipped_byte_anywhere_is_found_or_harmless(disk: Home) -> None:
    rows = [completion("c"), completion("d", answer="Take the raft.")]
    path = write_shard(disk, COMPLETIONS, rows)
    assert path is not None
    content, sound_rows = Path(path).read_bytes(), to_arrow(COMPLETIONS, rows).to_pylist()
    num_found = 0
    for position in range(0, len(content), 97):
        Path(path).write_bytes(content)
        flip(disk, path, position)
        if mend(disk, deep=True):
            num_found += 1
        else:
            assert read(disk, path) == sound_rows
    assert num_found > 20


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt_id": "x"}, "table prompts: categories is missing"),
        (prompt("x", categories=3), "table prompts"),
        (prompt("x", messages=[Turn(role="user", content="\ud800")]), "table prompts: .*utf"),
    ],
)
def test_rows_that_do_not_fit_their_table_are_refused(disk: Home, row: Any, message: str) -> None:
    with pytest.raises(ShardError, match=message):
        write_shard(disk, PROMPTS, [row])
    assert list_shards(disk, PROMPTS) == []


def test_rows_of_another_table_are_refused(disk: Home) -> None:
    with pytest.raises(ShardError, match="another schema were given to table completions"):
        write_shard(disk, COMPLETIONS, to_arrow(PROMPTS, [prompt("x")]))


def test_a_home_may_have_any_name(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "o[d]d's {*} home"))
    write_shard(home, PROMPTS, [prompt("one")])
    assert len(list_shards(home, PROMPTS)) == 1
    assert prompt_ids(home) == ids_of(prompt("one"))


def test_compacting_keeps_every_row_once(home: Home) -> None:
    rows = [prompt(f"number {n}") for n in range(7)]
    for row in rows:
        write_shard(home, PROMPTS, [row])
    write_shard(home, PROMPTS, [replace(rows[0], source="later", created_at=later(1)), rows[1]])
    assert compact(home, PROMPTS) == (8, 1)
    merged = read_all(home, PROMPTS)
    assert sorted(row["prompt_id"] for row in merged) == ids_of(*rows)
    assert {row["source"] for row in merged} == {"hand"}
    assert prompt_ids(home) == ids_of(*rows)
    assert mend(home, deep=True) == []
    assert compact(home, PROMPTS) == (1, 1)


def test_compacting_keeps_every_attempt(home: Home) -> None:
    for attempt in (0, 1):
        write_shard(home, COMPLETIONS, [completion("c", attempt=attempt)])
    compact(home, COMPLETIONS)
    assert sorted(row["attempt"] for row in read_all(home, COMPLETIONS)) == [0, 1]


def test_compacting_that_was_killed_loses_nothing_and_can_be_repeated(home: Home) -> None:
    rows = [prompt(f"number {n}") for n in range(4)]
    for row in rows:
        write_shard(home, PROMPTS, [row])
    before = {path: home.files.cat_file(path) for path in list_shards(home, PROMPTS)}
    compact(home, PROMPTS)
    # Killed before the small shards were removed, all but one of them are still there.
    for path in list(before)[1:]:
        home.files.pipe_file(path, before[path])
    assert prompt_ids(home) == ids_of(*rows)
    assert compact(home, PROMPTS) == (4, 1)
    assert len(read_all(home, PROMPTS)) == 4


def test_compacting_fills_shards_up_to_a_size_and_leaves_large_ones(home: Home) -> None:
    large = [prompt(f"large {n}") for n in range(5)]
    kept = write_shard(home, PROMPTS, large)
    small = [prompt(f"small {n}") for n in range(9)]
    for row in small:
        write_shard(home, PROMPTS, [row])
    assert compact(home, PROMPTS, rows_per_shard=4) == (10, 4)
    assert kept in list_shards(home, PROMPTS)
    assert prompt_ids(home) == ids_of(*large, *small)


def test_every_table_has_a_schema_that_parquet_gives_back(tmp_path: Path) -> None:
    for table in TABLES.values():
        path = tmp_path / f"{table.name}.parquet"
        pq.write_table(table.schema.empty_table(), path)
        assert pq.read_schema(path).equals(table.schema, check_metadata=True)
        assert set(table.key) <= set(table.schema.names)


def test_every_column_has_its_type_and_a_sentence() -> None:
    for table in TABLES.values():
        described = columns(table)
        assert [column.name for column in described] == table.schema.names
        assert all(column.sentence.endswith(".") for column in described)
    [scores] = [column for column in columns(EVALUATIONS) if column.name == "scores"]
    assert "from 0 to 1" in scores.sentence and not scores.nullable
    assert scores.type.startswith("list<element: struct<name: string not null, value: double>")


@dataclass
class Wordless:
    """A row class of which one field has no sentence."""

    spoken: str
    """A column."""
    silent: str


def test_column_without_a_sentence_is_refused() -> None:
    with pytest.raises(ValueError, match=r"column Wordless\.silent has no sentence; write one"):
        columns(Table("wordless", Wordless, ("spoken",)))
