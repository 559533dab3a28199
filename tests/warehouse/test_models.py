"""A model is used where it lies on a disk; a store has it whole or not at all."""

from pathlib import Path

import pytest

from warehouse.home import Home
from warehouse.models import fetch_folder, has_folder, keep_folder, scratch

PATH = "models/abc"


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRECEPT_SCRATCH", str(tmp_path / "scratch"))


def make_model(home: Home) -> Path:
    folder = scratch(home) / PATH
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_kept_model_is_fetched_on_another_machine(home: Home, tmp_path: Path) -> None:
    folder = make_model(home)
    keep_folder(home, PATH)
    assert has_folder(home, PATH)
    if not home.is_local:
        folder.rename(tmp_path / "the first machine")
    fetched = fetch_folder(home, PATH)
    assert fetched == folder
    assert {file.name: file.read_bytes() for file in fetched.iterdir()} == {
        "config.json": b"{}",
        "model.safetensors": b"weights",
    }


def test_model_on_this_machine_is_not_fetched(home: Home) -> None:
    folder = make_model(home)
    assert fetch_folder(home, PATH) == folder


def test_missing_model_is_refused_in_one_sentence(home: Home) -> None:
    assert not has_folder(home, PATH)
    with pytest.raises(FileNotFoundError, match=r"no model at .*models/abc; run precept train"):
        fetch_folder(home, PATH)


@pytest.mark.parametrize("home", ["store"], indirect=True)
def test_interrupted_copy_leaves_no_model(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_model(home)
    kind = type(home.files)
    with monkeypatch.context() as broken:
        put = kind.put_file

        def put_some(self: object, local: str, remote: str, **options: object) -> None:
            if local.endswith("config.json"):
                raise ConnectionError("the store is gone")
            put(self, local, remote, **options)

        broken.setattr(kind, "put_file", put_some)
        with pytest.raises(ConnectionError):
            keep_folder(home, PATH)
    assert not has_folder(home, PATH)
    keep_folder(home, PATH)
    (folder / "config.json").unlink()
    (folder / "model.safetensors").unlink()
    folder.rmdir()

    def get_none(self: object, remote: str, local: str, **options: object) -> None:
        raise ConnectionError("the store is gone")

    monkeypatch.setattr(kind, "get_file", get_none)
    with pytest.raises(ConnectionError):
        fetch_folder(home, PATH)
    assert list(folder.parent.iterdir()) == []
