"""A warehouse on a real S3 server: the promises of a disk."""

import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import s3fs

from flows.doctor import examine
from tests.rows import completion, prompt
from tests.servers import running
from warehouse.catalog import ask, connect
from warehouse.folders import fetch_folder, keep_folder, scratch
from warehouse.shards import Home, compact, list_shards, may_pass, mend, write_shard
from warehouse.tables import COMPLETIONS, PROMPTS


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    command = ("moto.server", "-H", "127.0.0.1", "-p")
    with running(*command, answers="/moto-api", seconds=60) as url:
        yield url


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Home:
    """A home in a bucket of its own; who may write is told by the usual variables."""
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


def test_of_writers_at_once_the_first_one_counts(bucket: Home) -> None:
    def write(text: str) -> str | None:
        return write_shard(bucket, COMPLETIONS, [completion("c", answer=text)])

    first = write("first")
    with ThreadPoolExecutor(8) as writers:
        paths = set(writers.map(write, [f"later {number}" for number in range(16)]))
    assert paths == {first} and list_shards(bucket, COMPLETIONS) == [first]
    assert connect(bucket).sql("SELECT answer FROM completions_raw").fetchall() == [("first",)]


def test_questions_damage_and_compaction_are_as_on_a_disk(bucket: Home) -> None:
    for number in range(3):
        write_shard(bucket, PROMPTS, [prompt(f"text {number}", prompt_id=f"p{number}")])
    broken = list_shards(bucket, PROMPTS)[0]
    bucket.files.pipe_file(broken, b"rubbish")
    [damaged] = mend(bucket)
    assert damaged.path == broken and bucket.files.cat_file(damaged.moved_to) == b"rubbish"
    assert compact(bucket, PROMPTS) == (2, 1)
    assert connect(bucket).sql("SELECT count(*) FROM prompts").fetchall() == [(2,)]
    assert ask(connect(bucket), "funnel").num_rows > 0
    [path] = list_shards(bucket, PROMPTS)
    with bucket.files.open(path, "rb") as file:
        assert pq.ParquetFile(file).metadata.num_rows == 2


def test_a_model_goes_into_the_bucket_and_comes_out_on_another_machine(
    bucket: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = scratch(bucket) / "models/m"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(1 << 20))
    keep_folder(bucket, "models/m")
    monkeypatch.setenv("PRECEPT_SCRATCH", str(tmp_path / "another machine"))
    found = fetch_folder(bucket, "models/m")
    assert found != folder
    for file in folder.iterdir():
        assert (found / file.name).read_bytes() == file.read_bytes()


def test_doctor_finds_what_is_wrong_with_a_store(bucket: Home) -> None:
    def home_check(home: Home) -> bool:
        return next(check.ok for check in examine(home) if check.name == "home")

    assert home_check(bucket)
    assert not home_check(Home("s3://no-such-bucket-of-ours/home"))


def test_a_store_that_is_away_may_come_back(bucket: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(Exception) as away:  # s3fs has many
        write_shard(bucket, COMPLETIONS, [completion("c")])
    assert may_pass(away.value)
    s3fs.S3FileSystem.clear_instance_cache()
