"""Sources on a store are read like files, and a store that cannot be read is told in a sentence."""

import bz2
import gzip
import json
from collections.abc import Iterator
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from specs.policy import Outcome
from tasks.data.candidates import NoteTaker, read_source
from tests.rows import source, source_rows
from tests.servers import running
from tests.tasks.data.test_sources import texts

Files = fsspec.AbstractFileSystem


@pytest.fixture
def store() -> Iterator[Files]:
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/shelf", recursive=True)


def lines(*names: str) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in source_rows(*names)).encode()


def fill(files: Files, root: str) -> None:
    zstd = pa.BufferOutputStream()
    with pa.CompressedOutputStream(zstd, "zstd") as packed:
        packed.write(lines("four"))
    csv = b"prompt,category\nfive,boats\n"
    texts_by_name = {
        "a.jsonl": lines("one"),
        "b.jsonl.gz": gzip.compress(lines("two")),
        "deep/c.ndjson.bz2": bz2.compress(lines("three")),
        "deep/d.jsonl.zst": zstd.getvalue().to_pybytes(),
        "e.csv": csv,
        "notes.txt": b"x",
        ".cache/f.jsonl": lines("hidden"),
    }
    for name, content in texts_by_name.items():
        files.pipe_file(f"{root}/{name}", content)
    with files.open(f"{root}/g.parquet", "wb") as file:
        pq.write_table(pa.Table.from_pylist(source_rows("six")), file)


def test_a_folder_on_a_store_is_read_like_one_on_a_disk(store: Files) -> None:
    fill(store, "/shelf")
    reader = NoteTaker(source("memory://shelf"))
    rows = list(reader.candidates())
    assert texts(rows) == ["one", "two", "three", "four", "five", "six"]
    assert rows[0].place == "memory:///shelf/a.jsonl:1"
    assert str(reader.notes) == "1 file skipped: notes.txt"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("memory://shelf/g.parquet", ["six"]),
        ("memory://shelf/*.jsonl*", ["one", "two"]),
        ("memory://shelf/**/*.zst", ["four"]),
    ],
)
def test_a_file_and_a_glob_on_a_store_are_read(
    store: Files, path: str, expected: list[str]
) -> None:
    fill(store, "/shelf")
    assert texts(read_source(source(path))) == expected


def test_a_damaged_file_on_a_store_is_told_with_its_place(store: Files) -> None:
    store.pipe_file("/shelf/a.jsonl.gz", gzip.compress(lines("one", "two"))[:-9])
    store.pipe_file("/shelf/b.parquet", b"x" * 20)
    for name, message in (("a.jsonl.gz", "not a whole gzip"), ("b.parquet", "not Parquet")):
        with pytest.raises(ValueError, match=f"memory:///shelf/{name}: {message}"):
            list(read_source(source(f"memory://shelf/{name}")))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("memory://nowhere/a.jsonl", "memory://nowhere/a.jsonl.* that is there"),
        ("memory://nowhere/*.jsonl", "that is there"),
        ("s4://bucket/a.jsonl", "[Pp]rotocol.*give a path, s3://bucket/folder"),
    ],
)
def test_a_place_on_a_store_where_nothing_is_readable_is_told(path: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"source 'asked': .*{message}") as refusal:
        list(read_source(source(path)))
    assert "\n" not in str(refusal.value)


def test_what_a_store_raises_is_one_sentence(store: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, "/shelf")

    def refuse(*args: Any, **options: Any) -> Any:
        raise RuntimeError("Unable to locate\ncredentials")

    monkeypatch.setattr(type(store), "_open", refuse)
    with pytest.raises(ValueError, match=r"locate credentials.*give its credentials") as refusal:
        list(read_source(source("memory://shelf/a.jsonl")))
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_a_bucket_is_read_and_one_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running("moto.server", "-H", "127.0.0.1", "-p", answers="/moto-api", seconds=60) as url:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": url,
        }.items():
            monkeypatch.setenv(name, value)
        files = fsspec.filesystem("s3", skip_instance_cache=True)
        files.mkdir("asked")
        fill(files, "asked/rows")
        chosen = source("s3://asked/rows", ideal_response_value=Outcome.COMPLY)
        assert texts(read_source(chosen)) == ["one", "two", "three", "four", "five", "six"]
        assert texts(read_source(source("s3://asked/rows/deep/*.zst"))) == ["four"]
        for path in ("s3://asked/none/a.jsonl", "s3://elsewhere/*.jsonl"):
            with pytest.raises(ValueError, match=path.replace("*", ".")):
                list(read_source(source(path)))
