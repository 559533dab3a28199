"""A user's own statement reads the warehouse and does nothing else."""

from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.warehouse.test_catalog import write_small_warehouse
from warehouse.catalog import QuestionError
from warehouse.home import Home
from warehouse.shards import list_shards
from warehouse.statement import check_statement, run_statement
from warehouse.tables import PROMPTS

ALLOWED = [
    "SELECT count(*) FROM completions",
    "FROM prompts LIMIT 1;",
    "-- a comment\nVALUES (1), (2)",
    "WITH w AS (FROM verdicts) SELECT verdict, count(*) FROM w GROUP BY ALL",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 3) FROM r",
    "DESCRIBE completions",
    "DESCRIBE SELECT status FROM completions",
    "SUMMARIZE prompts",
    "SHOW TABLES",
    "SELECT unnest(cited) FROM completions",
    "SELECT * FROM range(3)",
    "SELECT key FROM prompts, json_each(to_json(messages))",
    "PIVOT completions ON status IN ('ok', 'unclosed') USING count(*) GROUP BY spec_id",
    "SELECT column_name FROM information_schema.columns",
    "FROM evaluation_runs",
    "FROM unread_files",
    "SELECT list_transform(cited, lambda rule: lower(rule)) FROM completions",
]

HOSTILE = [
    "",
    "  -- nothing\n ",
    ";",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP VIEW completions",
    "COPY completions TO '{out}'",
    "COPY (SELECT 1) TO '{out}' (FORMAT csv)",
    "COPY completions TO '{shard}'",
    "EXPORT DATABASE '{out}'",
    "ATTACH '{out}' AS other",
    "INSTALL httpfs",
    "LOAD icu",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "SET threads = 1",
    "SET VARIABLE run = 'x'",
    "RESET threads",
    "USE memory",
    "CREATE TABLE t AS SELECT 1",
    "CREATE MACRO m() AS TABLE FROM read_text('{secret}')",
    "DROP VIEW completions",
    "INSERT INTO unread_files VALUES ('a', 'b', 'c')",
    "DELETE FROM unread_files",
    "UPDATE unread_files SET file = ''",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}'",
    "PREPARE p AS SELECT 1",
    "BEGIN",
    "CHECKPOINT",
    "SELECT * FROM read_text('{secret}')",
    "FROM read_csv('{secret}')",
    "FROM read_parquet('{shard}')",
    "FROM parquet_scan('{shard}')",
    "FROM parquet_metadata('{shard}')",
    "FROM read_blob('{shard}')",
    "FROM glob('{home}/*')",
    "FROM sniff_csv('{secret}')",
    "FROM '{secret}'",
    "FROM '{shard}'",
    'FROM "{shard}"',
    "DESCRIBE FROM '{shard}'",
    "SUMMARIZE '{shard}'",
    "SELECT (SELECT max(content) FROM read_text('{secret}'))",
    "SELECT 1 WHERE EXISTS (FROM read_text('{secret}'))",
    "WITH w AS (FROM read_text('{secret}')) FROM w",
    "SELECT * FROM completions, LATERAL (SELECT content FROM read_text('{secret}'))",
    "FROM query('FROM read_text(''{secret}'')')",
    "FROM query_table('{shard}')",
    "FROM intervals('{secret}')",
    "FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "SELECT getenv('HOME')",
    "SELECT current_setting('threads')",
    "FROM duckdb_settings()",
    "FROM duckdb_secrets()",
    "FROM read_json('http://127.0.0.1:9/x.json')",
    "FROM 's3://bucket/x.parquet'",
    "FROM python_rows",
]


def run(home: Home, query: str) -> list[dict[str, Any]]:
    return run_statement(home, query).read_all().to_pylist()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A warehouse that no statement may change."""
    home = Home(str(tmp_path_factory.mktemp("small")))
    write_small_warehouse(home)
    return home


@pytest.mark.parametrize("query", ALLOWED)
def test_statement_that_reads_the_warehouse_is_answered(small: Home, query: str) -> None:
    run(small, query)


@pytest.mark.parametrize("query", ['FROM "Verdicts"', "SELECT '\n-- ' AS a FROM main.verdicts"])
def test_view_is_read_however_it_is_named(small: Home, query: str) -> None:
    assert len(run(small, query)) == 4


def test_tables_are_listed_with_the_views_over_verdicts_and_usage(small: Home) -> None:
    names = {row["name"] for row in run(small, "SHOW TABLES")}
    assert names > {"completions", "verdicts", "accepted", "preference_pairs", "usage", "held"}
    assert "stage_figures" in names and "cells" not in names
    described = run(small, "DESCRIBE accepted")
    assert described[0]["column_name"] == "completion_id"


@pytest.mark.parametrize("query", HOSTILE)
def test_statement_that_does_anything_else_is_refused_and_leaves_nothing(
    small: Home, tmp_path: Path, query: str
) -> None:
    secret, out = tmp_path / "secret.csv", tmp_path / "out"
    secret.write_text("a,b\n1,2\n")
    [shard] = list_shards(small, PROMPTS)
    folders = (tmp_path, Path(small.url))

    def files() -> list[tuple[Path, int]]:
        return sorted((path, path.stat().st_size) for one in folders for path in one.rglob("*"))

    before = files()
    python_rows = [1]
    assert python_rows
    places = {"out": out, "secret": secret, "shard": shard, "home": small.url}
    for name, place in places.items():
        query = query.replace(f"{{{name}}}", str(place))
    with pytest.raises((QuestionError, duckdb.Error)):
        run(small, query)
    assert files() == before


@pytest.mark.parametrize("query", [query for query in HOSTILE if "{" not in query][:20])
def test_refusal_is_one_sentence_that_says_what_can_be_run(query: str) -> None:
    if "FROM" in query:
        return
    with pytest.raises(QuestionError, match=r"precept sql (runs one|reads the)") as refusal:
        check_statement(query)
    assert "\n" not in str(refusal.value)


def test_second_fence_stands_without_the_first(
    disk: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small_warehouse(disk)
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\n1,2\n")
    monkeypatch.setattr("warehouse.statement.check_statement", lambda query: None)
    copy = f"COPY (SELECT 1) TO '{tmp_path}/x'"
    for query in (f"FROM read_csv('{secret}')", copy, "SET threads = 1"):
        with pytest.raises(duckdb.Error, match=r"disabled by configuration|been locked"):
            run(disk, query)


def test_statement_reads_a_home_of_any_name_and_on_a_store(home: Home, tmp_path: Path) -> None:
    odd = Home(f"{home.url}/o[d]d {{*}} ?=1")
    for place in (home, odd):
        write_small_warehouse(place)
        assert run(place, "SELECT count(*) AS n FROM completions") == [{"n": 4}]
    assert run_statement(home, "FROM completions", limit=2).read_all().num_rows == 2
    assert run_statement(home, "SHOW TABLES", limit=1).read_all().num_rows == 1
