"""The catalog file: any DuckDB reads the warehouse through it, without Precept, during runs."""

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from tests.flows.test_command_line import invoke
from tests.rows import completion
from tests.warehouse.test_catalog import write_small_warehouse
from warehouse.catalog import connect, query_names, query_text, read
from warehouse.catalog_file import catalog_of, write_catalog
from warehouse.files import OutputError
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import COMPLETIONS, TABLES

NUM_SHARDS = 9
READER = """
import sys, time
import duckdb
assert "warehouse" not in sys.modules
connection = duckdb.connect(sys.argv[1], read_only=True)
print("open", flush=True)
seen, began = [], time.monotonic()
while (not seen or seen[-1] < int(sys.argv[2])) and time.monotonic() - began < 300:
    (count,), = connection.execute("SELECT count(*) FROM completions_all").fetchall()
    seen.append(count)
assert seen == sorted(seen), seen
connection.execute("FROM verdicts").fetchall()
print(seen[0], seen[-1])
"""


@pytest.fixture
def small(tmp_path: Path) -> Home:
    home = Home(str(tmp_path / "it's [a] home"))
    write_small_warehouse(home)
    return home


def test_second_process_sees_the_shards_that_are_written_meanwhile(
    small: Home, tmp_path: Path
) -> None:
    path = write_catalog(small, str(tmp_path / "catalog.duckdb"))
    [(before,)] = connect(small).sql("SELECT count(*) FROM completions_all").fetchall()
    last = str(before + NUM_SHARDS)
    command = [sys.executable, "-I", "-c", READER, str(path), last]
    # Elsewhere, so that no relative path leads to the shards.
    with subprocess.Popen(command, cwd="/", stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None and reader.stdout.readline() == "open\n"
        for number in range(NUM_SHARDS):
            write_shard(small, COMPLETIONS, [completion(f"more{number}")])
        # It is refreshed under the reader's eyes, too.
        write_catalog(small, str(path))
        assert reader.stdout.readline().split()[1] == last
    assert reader.returncode == 0


def test_file_holds_the_views_and_no_data(small: Home, tmp_path: Path) -> None:
    path = write_catalog(small, str(tmp_path / "catalog.duckdb"))
    own = connect(small)
    with duckdb.connect(str(path), read_only=True) as plain:
        assert plain.sql("FROM duckdb_tables() WHERE NOT internal").fetchall() == []
        for view in (*TABLES, "accepted", "usage", "verdicts", "held", "plans"):
            query = f"FROM {view} ORDER BY ALL"
            assert plain.sql(query).fetchall() == read(own, query).fetchall(), view
        [(comment,)] = plain.sql(
            "SELECT comment FROM duckdb_columns() "
            "WHERE table_name = 'completions' AND column_name = 'cited'"
        ).fetchall()
        assert comment == "Rule ids that the reasoning cites, in order of first mention."
    size = path.stat().st_size
    for number in range(9):
        write_shard(small, COMPLETIONS, [completion(f"c{number}", answer="a word " * 9000)])
    assert write_catalog(small, str(path)).stat().st_size == size < 2**20


@pytest.mark.slow
def test_duckdbs_own_command_line_opens_it_though_it_is_older(small: Home, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("duckdb")
    if not program.exists():
        pytest.skip("no command line of DuckDB: pip install duckdb-cli")
    path = write_catalog(small, str(tmp_path / "catalog.duckdb"))
    with duckdb.connect(str(path), read_only=True) as plain:
        views = plain.sql("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    queries = [f'FROM "{name}"' for (name,) in views] + [query_text(one) for one in query_names()]
    script = "".join(f"{query.strip().removesuffix(';')};\n" for query in queries)
    command = [str(program), "-readonly", "-bail", str(path)]
    done = subprocess.run(command, input=script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_only_the_catalog_of_the_same_warehouse_is_replaced_without_a_word(
    small: Home, tmp_path: Path
) -> None:
    path = tmp_path / "catalog.duckdb"
    assert invoke("views", str(path), "--home", small.url)[0] == 0
    assert catalog_of(path) == small.url
    assert invoke("views", str(path), "--home", small.url)[0] == 0
    other = Home(str(tmp_path / "other"))
    write_small_warehouse(other)
    code, out, err = invoke("views", str(path), "--home", other.url)
    assert (code, out) == (2, "") and f"is the catalog of {small.url}" in err
    with duckdb.connect(str(tmp_path / "mine.duckdb")) as connection:
        connection.execute("CREATE TABLE diary (day VARCHAR)")
    (tmp_path / "text.duckdb").write_text("dear diary")
    for name in ("mine.duckdb", "text.duckdb"):
        content = (tmp_path / name).read_bytes()
        with pytest.raises(OutputError, match="no catalog of Precept's"):
            write_catalog(small, str(tmp_path / name))
        assert (tmp_path / name).read_bytes() == content
    code, out, _ = invoke("views", str(path), "--home", other.url, "--force")
    assert code == 0 and "duckdb -readonly" in out and catalog_of(path) == other.url
    code, _, err = invoke("views", str(tmp_path / "views.sql"), "--home", small.url)
    assert code == 2 and "ends on .duckdb" in err
    leftovers = {one.name for one in tmp_path.iterdir()}
    assert leftovers == {"it's [a] home", "other", "catalog.duckdb", "mine.duckdb", "text.duckdb"}


def test_catalog_that_another_program_has_open_is_refreshed(small: Home, tmp_path: Path) -> None:
    path = write_catalog(small, str(tmp_path / "catalog.duckdb"))
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); input()"
    command = [sys.executable, "-I", "-c", hold, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline()
        write_catalog(small, str(path))
        holder.communicate(b"\n")
    assert holder.returncode == 0 and catalog_of(path) == small.url
