"""Model folders: on a disk where they are used, whole in a store or not there."""

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


def test_a_kept_model_is_used_on_another_machine(home: Home, tmp_path: Path) -> None:
    folder = make_model(home)
    keep_folder(home, PATH)
    assert has_folder(home, PATH)
    if not home.is_local:
        folder.rename(tmp_path / "the first machine")
    found = fetch_folder(home, PATH)
    assert found == folder
    assert {file.name: file.read_bytes() for file in found.iterdir()} == {
        "config.json": b"{}",
        "model.safetensors": b"weights",
    }


def test_a_model_that_is_here_is_not_fetched(home: Home) -> None:
    folder = make_model(home)
    assert fetch_folder(home, PATH) == folder


def test_a_model_that_is_nowhere_is_a_sentence(home: Home) -> None:
    assert not has_folder(home, PATH)
    with pytest.raises(FileNotFoundError, match=r"no model at .*models/abc; run precept train"):
        fetch_folder(home, PATH)


@pytest.mark.parametrize("home", ["store"], indirect=True)
def test_an_interrupted_copy_is_no_model(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
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
