"""Reads a small warehouse that schema version 2 wrote: every table, every question."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq

from warehouse.catalog import ask, connect, query_names
from warehouse.shards import Home, list_shards, mend
from warehouse.tables import TABLES

SCHEMA_2 = Path(__file__).parent / "warehouses" / "schema_2"
"""Two prompts of one policy, followed from their source to the evaluation of a trained model."""

ROWS = {
    "prompts": 2,
    "policies": 2,
    "completions": 4,
    "judgements": 6,
    "examples": 2,
    "checkpoints": 1,
    "rollouts": 2,
    "cases": 2,
    "answers": 4,
    "evaluations": 4,
    "exchanges": 2,
    "runs": 3,
}


def test_every_table_of_schema_2_is_read() -> None:
    connection = connect(Home(str(SCHEMA_2)))
    assert {
        table: connection.sql(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in TABLES
    } == ROWS


def test_questions_about_a_warehouse_of_schema_2_are_answered() -> None:
    connection = connect(Home(str(SCHEMA_2)))
    assert [tuple(row.values()) for row in ask(connection, "funnel").to_pylist()] == [
        ("prompts", 2, ""),
        ("generated", 4, ""),
        ("parsed", 3, "unclosed 1"),
        ("judged", 3, ""),
        ("accepted", 2, "score under threshold 1"),
    ]
    assert {
        (row["arm"], row["metric"], row["mean"])
        for row in ask(connection, "evaluation").to_pylist()
    } == {
        ("base", "not_overrefuse", 1.0),
        ("base", "not_unsafe", 0.0),
        ("SFT", "not_overrefuse", 1.0),
        ("SFT", "not_unsafe", 1.0),
    }
    for name in query_names():
        ask(connection, name)


def test_shards_of_schema_2_are_whole_and_say_their_version(tmp_path: Path) -> None:
    home = Home(str(shutil.copytree(SCHEMA_2, tmp_path / "home")))
    assert mend(home, deep=True) == []
    for table in TABLES.values():
        for path in list_shards(home, table):
            assert pq.read_schema(path).metadata[b"schema_version"] == b"2"
