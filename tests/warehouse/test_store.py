"""A warehouse on a real S3 server keeps the promises of one on a disk."""

import os
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import s3fs
from aiobotocore.client import AioBaseClient

from flows.doctor import run_checks
from flows.lock import BusyError, is_locked, lock
from tasks.paths import PROJECT
from tests.rows import completion, prompt
from tests.servers import running
from warehouse.catalog import QuestionError, ask, connect, read, unread_files
from warehouse.home import Home, HomeError, make_home, may_pass, require_warehouse
from warehouse.models import fetch_folder, keep_folder, scratch
from warehouse.shards import list_shards, write_shard
from warehouse.statement import run_statement
from warehouse.tables import COMPLETIONS, PROMPTS, TABLES
from warehouse.upkeep import compact, mend

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    command = ("moto.server", "-H", "127.0.0.1", "-p")
    with running(*command, answers="/moto-api", seconds=60) as url:
        yield url


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Home:
    """A home in a bucket of its own, with credentials in the usual variables."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server,
        "PRECEPT_SCRATCH": str(tmp_path / "scratch"),
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"precept-{uuid.uuid4().hex}"
    s3fs.S3FileSystem().mkdir(name)
    return Home(f"s3://{name}/home")


def test_first_of_concurrent_writers_of_a_shard_wins(bucket: Home) -> None:
    def write(text: str) -> str | None:
        return write_shard(bucket, COMPLETIONS, [completion("c", answer=text)])

    first = write("first")
    with ThreadPoolExecutor(8) as writers:
        paths = set(writers.map(write, [f"later {number}" for number in range(16)]))
    assert paths == {first} and list_shards(bucket, COMPLETIONS) == [first]
    assert connect(bucket).sql("SELECT answer FROM completions_raw").fetchall() == [("first",)]


def test_questions_mending_and_compaction_work_as_on_a_disk(bucket: Home) -> None:
    for number in range(3):
        write_shard(bucket, PROMPTS, [prompt(f"text {number}", prompt_id=f"p{number}")])
    broken = list_shards(bucket, PROMPTS)[0]
    bucket.files.pipe_file(broken, b"rubbish")
    empty = f"{bucket.folder(PROMPTS)}/empty.parquet"
    bucket.files.pipe_file(empty, b"")
    damaged, damaged_empty = sorted(mend(bucket), key=lambda shard: shard.path == empty)
    assert damaged_empty.path == empty
    assert damaged.path == broken and bucket.files.cat_file(damaged.moved_to) == b"rubbish"
    assert compact(bucket, PROMPTS) == (2, 1)
    assert connect(bucket).sql("SELECT count(*) FROM prompts").fetchall() == [(2,)]
    assert ask(connect(bucket), "funnel").num_rows > 0
    [path] = list_shards(bucket, PROMPTS)
    with bucket.files.open(path, "rb") as file:
        assert pq.ParquetFile(file).metadata.num_rows == 2


def test_damaged_page_is_found_by_a_deep_mend(bucket: Home) -> None:
    path = write_shard(bucket, COMPLETIONS, [completion("c", answer="word " * 1000)])
    content = bytearray(bucket.files.cat_file(path))
    content[200] ^= 255
    bucket.files.pipe_file(path, bytes(content))
    assert mend(bucket) == []
    [damaged] = mend(bucket, deep=True)
    assert damaged.path == path


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the requests to a store from now on, by kind, and the bytes that it returns."""
    counts: Counter[str] = Counter()
    call = AioBaseClient._make_api_call

    async def count(self: AioBaseClient, kind: str, options: Any) -> Any:
        counts[kind] += 1
        response = await call(self, kind, options)
        counts["bytes"] += response.get("ContentLength", 0)
        return response

    monkeypatch.setattr(AioBaseClient, "_make_api_call", count)
    return counts


def test_connection_lists_each_folder_once_and_fetches_each_shard_once(
    bucket: Home, requests: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        write_shard(bucket, COMPLETIONS, [completion(f"c{number}")])
    requests.clear()
    connection = connect(bucket)
    for _ in range(2):
        ask(connection, "funnel")
        read(connection, "SELECT count(*) FROM verdicts").fetchall()
    assert requests["ListObjectsV2"] <= len(TABLES) + 1
    assert requests["HeadObject"] == 0
    assert requests["GetObject"] <= 2 * 20
    requests.clear()
    assert mend(bucket) == []
    assert requests["GetObject"] == 20
    # A footer longer than the bytes first fetched takes a second request.
    monkeypatch.setattr("warehouse.listing._FOOTER_BYTES", 64)
    assert mend(bucket) == []
    assert requests["GetObject"] == 20 + 2 * 20


def test_only_the_columns_asked_for_are_read_of_a_large_shard(
    bucket: Home, requests: Counter[str]
) -> None:
    rows = [completion(f"c{number}", answer=os.urandom(2000).hex()) for number in range(2000)]
    path = write_shard(bucket, COMPLETIONS, rows)
    size = bucket.files.size(path)
    requests.clear()
    query = "SELECT count(DISTINCT completion_id) FROM completions_raw"
    assert connect(bucket).sql(query).fetchall() == [(2000,)]
    assert mend(bucket) == []
    assert requests["bytes"] < size / 10


def test_folders_named_key_value_in_a_bucket_change_nothing_and_sql_reads_it(bucket: Home) -> None:
    below = Home(f"{bucket.url}/env=prod/status=failed/run_id=7")
    write_shard(below, COMPLETIONS, [completion("c")])
    below.files.pipe_file(f"{below.folder(COMPLETIONS)}/extra.parquet", b"planted")
    connection = connect(below)
    assert connection.table("completions").columns == COMPLETIONS.schema.names
    [stray] = unread_files(connection)
    assert stray.name == "extra.parquet"
    rows = run_statement(below, "SELECT status, run_id FROM completions").read_all()
    assert rows.to_pylist() == [{"status": "ok", "run_id": "r"}]
    for query in (f"FROM '{below.readable(stray.path)}'", "FROM read_text('s3://other/x')"):
        with pytest.raises(QuestionError, match="precept sql reads the tables"):
            run_statement(below, query)
    [moved] = mend(below, every_file=True)
    assert moved.path == stray.path and unread_files(connect(below)) == []


def test_bucket_without_a_warehouse_and_no_bucket_are_told(bucket: Home) -> None:
    for home in (bucket, Home("s3://no-such-bucket-of-ours/home")):
        with pytest.raises(HomeError, match=r"^there is no warehouse .*at s3://"):
            require_warehouse(home)
    make_home(bucket)
    with pytest.raises(HomeError, match="there is no bucket no-such-bucket-of-ours"):
        make_home(Home("s3://no-such-bucket-of-ours/home"))


def test_lock_of_a_killed_writer_is_free_at_once_without_a_prefect_server(
    bucket: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    hold = (
        "import sys, time\nfrom flows.lock import lock\nfrom warehouse.home import Home\n"
        "with lock(Home(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", hold, bucket.url], stdout=subprocess.PIPE, cwd=PROJECT
    )
    with writer, temporary_settings(restore_defaults={PREFECT_API_URL}):
        try:
            assert writer.stdout and writer.stdout.readline() == b"held\n"
            with pytest.raises(BusyError, match="is writing to"), lock(Home(f"{bucket.url}/")):
                pass
            assert is_locked(bucket)
        finally:
            writer.kill()
        writer.wait()
        with lock(bucket):
            pass


def test_model_kept_in_the_bucket_is_fetched_on_another_machine(
    bucket: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = scratch(bucket) / "models/m"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(1 << 20))
    keep_folder(bucket, "models/m")
    monkeypatch.setenv("PRECEPT_SCRATCH", str(tmp_path / "another machine"))
    fetched = fetch_folder(bucket, "models/m")
    assert fetched != folder
    for file in folder.iterdir():
        assert (fetched / file.name).read_bytes() == file.read_bytes()


def test_doctor_tells_a_store_that_takes_files_from_one_that_does_not(bucket: Home) -> None:
    def home_check(home: Home) -> bool:
        return next(check.ok for check in run_checks(home) if check.name == "home")

    assert home_check(bucket)
    assert not home_check(Home("s3://no-such-bucket-of-ours/home"))


def test_unreachable_store_is_a_transient_fault(
    bucket: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(Exception) as fault:  # s3fs raises several types
        write_shard(bucket, COMPLETIONS, [completion("c")])
    assert may_pass(fault.value)
    s3fs.S3FileSystem.clear_instance_cache()
