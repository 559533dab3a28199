"""Data sets that `datasets` reads: their faults are told with the cause and the remedy."""

from pathlib import Path
from typing import Any

import pytest

from tasks.data.candidates import read_source
from tasks.data.sources import SourceConfig
from tests.rows import jsonl
from tests.tasks.data.test_sources import texts


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def data_set(folder: Path, **options: Any) -> SourceConfig:
    return SourceConfig(name="set", dataset=str(folder), categories=["boats"], **options)


def write(folder: Path, **files: list[Any]) -> Path:
    folder.mkdir()
    for name, rows in files.items():
        jsonl(folder / f"{name}.jsonl", rows)
    return folder


def test_a_loading_script_is_refused_with_the_remedy(tmp_path: Path) -> None:
    folder = write(tmp_path / "scripted", data=[{"prompt": "hi"}])
    (folder / "scripted.py").write_text("# loader")
    with pytest.raises(
        ValueError, match=r"script is not run: set revision .*, or give its files"
    ) as e:
        list(read_source(data_set(folder)))
    assert str(e.value).count("\n") == 0


@pytest.mark.parametrize(
    "second", [{"prompt": "yo", "other": 1}, {"prompt": "yo", "note": {"a": 1}}, {"prompt": "yo"}]
)
def test_files_that_differ_in_columns_or_types_are_all_read(
    tmp_path: Path, second: dict[str, Any]
) -> None:
    folder = write(tmp_path / "mixed", a=[{"prompt": "hi", "note": "a"}], b=[second])
    assert texts(read_source(data_set(folder))) == ["hi", "yo"]
    with pytest.raises(ValueError, match=r"no column 'gone'; its columns are .*note"):
        list(read_source(data_set(folder, keep=["gone"])))


def test_a_file_that_cannot_be_read_is_named_with_the_cause(tmp_path: Path) -> None:
    folder = write(tmp_path / "broken", a=[{"prompt": "hi"}])
    (folder / "b.jsonl").write_text('{"prompt":\n')
    with pytest.raises(
        ValueError, match=r"\(.*/b\.jsonl: JSON parse error.*mend or remove the file"
    ):
        list(read_source(data_set(folder)))


def test_a_data_set_that_is_not_there_is_refused_with_what_to_check(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no/such.* cannot be read .*check its id, dataset_config"
    ):
        list(read_source(SourceConfig(name="set", dataset="no/such", categories=["boats"])))
