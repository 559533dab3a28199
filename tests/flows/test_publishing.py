"""`precept export dataset` and `precept export checkpoint`: what is written, and what is told."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.flows.test_command_line import invoke
from tests.warehouse.exports.test_cards import CHECKPOINT, fill_model
from tests.warehouse.exports.town import fill
from warehouse.exports.folders import kind_of
from warehouse.home import Home


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a user."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["precept", "export", *arguments])
    return invoke("export", *arguments)


def test_data_set_is_exported_with_its_numbers_and_the_next_commands(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = str(place / "home")
    fill(Home(home))
    arguments = ("dataset", "my data", "--form", "star1", "--home", home)
    code, out, err = export(monkeypatch, *arguments)
    assert (code, err) == (0, "")
    assert "       5 rows of traces; 2 do not fit the form\n" in out
    assert "datasets.load_dataset('my data', 'sft') in Python; precept push 'my data'" in out
    assert kind_of("my data") == "dataset"
    card = Path("my data", "README.md").read_text()
    assert "precept export dataset 'my data' --form star1 --home ./home\n" in card
    code, out, err = export(monkeypatch, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and "--force" in err
    assert export(monkeypatch, *arguments, "--force")[0] == 0
    assert {path.name for path in place.iterdir()} == {"home", "my data"}


def test_checkpoint_is_exported_by_the_start_of_its_id(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = place / "home"
    fill_model(Home(str(home)), home / "models" / "c")
    out_folder = str(place / "out" / "model")
    code, out, _ = export(monkeypatch, "checkpoint", "ccc", out_folder, "--home", str(home))
    assert code == 0 and f"checkpoint {CHECKPOINT} in {out_folder}" in out
    assert f"serve it: vllm serve {out_folder} --" in out
    card = Path(out_folder, "README.md").read_text()
    assert "vllm serve model --" in card and str(place) not in card
    shutil.rmtree(home / "models")
    code, _, err = export(monkeypatch, "checkpoint", "ccc", "again", "--home", str(home))
    assert code == 2 and "there is no model at" in err and not Path("again").exists()
    for start, fault in (("", "no checkpoint has an id"), ("d", "no checkpoint has an id")):
        code, _, err = export(monkeypatch, "checkpoint", start, "again", "--home", str(home))
        assert code == 2 and fault in err
