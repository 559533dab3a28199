"""The views as a file give any DuckDB the answers that `precept ask` gives."""

from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from tests.rows import completion, prompt
from tests.warehouse.test_catalog import write_small_warehouse
from tests.warehouse.test_evaluation_queries import Study
from warehouse.catalog import ask, connect, query_names, query_text, read
from warehouse.home import Home
from warehouse.script import views_script
from warehouse.shards import to_arrow, write_shard
from warehouse.tables import COMPLETIONS, PROMPTS, TABLES, content_id


def opened(home: Home) -> duckdb.DuckDBPyConnection:
    plain = duckdb.connect()
    plain.execute(views_script(home))
    return plain


@pytest.mark.slow
def test_bare_duckdb_answers_every_question_as_precept_does(tmp_path: Path) -> None:
    home = Home(str(tmp_path / "it's [a] status=ok" / "wh"))
    write_small_warehouse(home)
    plain, own = opened(home), connect(home)
    for name in query_names():
        assert plain.sql(query_text(name)).to_arrow_table() == ask(own, name), name
    for table in TABLES.values():
        query = f"FROM {table.name}_all ORDER BY ALL"
        assert plain.sql(query).fetchall() == own.sql(query).fetchall()
    for view in ("accepted", "usage", "shards", "verdicts", "held", "plans"):
        query = f"FROM {view} ORDER BY ALL"
        assert plain.sql(query).fetchall() == read(own, query).fetchall()


@pytest.mark.slow
def test_bare_duckdb_answers_questions_about_an_evaluation(disk: Home) -> None:
    study = Study(disk)
    study.case("bad", ideal_response="refuse")
    study.case("fine", ideal_response="comply")
    study.say("bad", {"safe": 1, "helped": None})
    study.say("fine", {"safe": None, "helped": 1})
    assert study.ask("evaluation")
    plain, own = opened(disk), connect(disk)
    for name in query_names():
        assert plain.sql(query_text(name)).to_arrow_table() == ask(own, name), name


def test_script_reads_no_other_file_sees_later_rows_and_runs_twice(disk: Home) -> None:
    write_small_warehouse(disk)
    script = views_script(disk)
    plain = opened(disk)
    plain.execute(script)
    [(before,)] = plain.sql("SELECT count(*) FROM completions_all").fetchall()
    forged = to_arrow(COMPLETIONS, [completion("forged")])
    for name in ("extra", content_id("x"), "0" * 32):
        pq.write_table(forged, f"{disk.folder(COMPLETIONS)}/{name}.parquet")
    assert plain.sql("SELECT count(*) FROM completions_all").fetchall() == [(before,)]
    write_shard(disk, COMPLETIONS, [completion("later")])
    write_shard(disk, PROMPTS, [prompt("later")])
    assert plain.sql("SELECT count(*) FROM completions_all").fetchall() == [(before + 1,)]
    assert plain.sql("SELECT count(*) FROM prompts").fetchall() == [(3,)]
