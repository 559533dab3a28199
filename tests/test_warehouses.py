"""Small warehouses that Precept wrote: today's is read whole, an older one is refused."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows.recipe import load_recipe
from flows.run import open_run
from tests.flows.test_command_line import invoke
from warehouse.catalog import ask, connect, query_names
from warehouse.home import Home, ShardError
from warehouse.shards import list_shards
from warehouse.tables import COMPLETIONS, SCHEMA_VERSION, TABLES
from warehouse.upkeep import compact, mend

WAREHOUSES = Path(__file__).parent / "warehouses"
OLD = {version: WAREHOUSES / f"schema_{version}" for version in (2, 3, 4, 5, 6)}
TODAY = WAREHOUSES / "schema_7"
"""Two prompts of one policy, followed from their source to the evaluation of a trained model."""

ROWS = {
    "prompts": 2,
    "specs": 2,
    "completions": 4,
    "judgements": 6,
    "reviews": 0,
    "examples": 2,
    "checkpoints": 1,
    "rollouts": 2,
    "findings": 0,
    "cases": 2,
    "answers": 4,
    "evaluations": 4,
    "exchanges": 2,
    "drafts": 0,
    "documents": 0,
    "runs": 3,
}


def test_every_table_of_todays_schema_is_read() -> None:
    connection = connect(Home(str(TODAY)))
    assert {name: len(connection.table(name)) for name in TABLES} == ROWS


def test_questions_about_a_warehouse_of_todays_schema_are_answered() -> None:
    connection = connect(Home(str(TODAY)))
    assert [tuple(row.values()) for row in ask(connection, "funnel").to_pylist()] == [
        ("read", 2, ""),
        ("prompts", 2, ""),
        ("generated", 4, ""),
        ("parsed", 3, "1 unclosed"),
        ("judged", 3, ""),
        ("accepted", 2, "1 under the threshold 8"),
        ("examples", 2, ""),
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


def test_shards_of_todays_schema_are_whole_and_say_their_version(tmp_path: Path) -> None:
    home = Home(str(shutil.copytree(TODAY, tmp_path / "home")))
    assert mend(home, deep=True) == []
    for table in TABLES.values():
        for path in list_shards(home, table):
            version = pq.read_schema(path).metadata[b"schema_version"]
            assert version.decode() == SCHEMA_VERSION


@pytest.mark.parametrize("version", OLD)
def test_older_warehouse_is_refused_in_one_sentence_and_left_as_it_is(
    tmp_path: Path, version: int
) -> None:
    home = Home(str(shutil.copytree(OLD[version], tmp_path / "home")))
    before = sorted((tmp_path / "home").rglob("*"))
    refused: list[Callable[[Home], object]] = [
        connect,
        mend,
        lambda home: compact(home, COMPLETIONS),
        lambda home: open_run("refresh", load_recipe("harbour"), home).__enter__(),
    ]
    for call in refused:
        with pytest.raises(ShardError, match=f"written with schema version {version}") as refusal:
            call(home)
        message = str(refusal.value)
        assert home.url in message and "precept export sft_examples" in message
        assert "\n" not in message
    code, _, stderr = invoke("status", "--home", home.url)
    assert code == 2 and stderr.count("\n") == 1 and f"schema version {version}" in stderr
    assert sorted((tmp_path / "home").rglob("*")) == before


@pytest.mark.parametrize(
    ("version", "table"),
    [(version, table.name) for version, home in OLD.items() for table in sorted(home.iterdir())],
)
def test_older_warehouse_is_known_by_any_of_its_tables(
    tmp_path: Path, version: int, table: str
) -> None:
    home = Home(str(tmp_path / "home"))
    shutil.copytree(OLD[version] / table, tmp_path / "home" / table)
    for call in (connect, mend):
        with pytest.raises(ShardError, match=f"written with schema version {version}"):
            call(home)


def test_older_shards_beside_a_run_of_today_are_refused(tmp_path: Path) -> None:
    shutil.copytree(TODAY / "runs", tmp_path / "home" / "runs")
    shutil.copytree(OLD[2] / "cases", tmp_path / "home" / "cases")
    with pytest.raises(ShardError, match="written with schema version 2"):
        connect(Home(str(tmp_path / "home")))
