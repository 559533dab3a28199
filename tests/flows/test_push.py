"""`precept push` to a hub on loopback: only when told, private, and nothing replaced unasked."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.__main__ import app
from tests.scripted_hub import TOKEN, ScriptedHub, scripted_hub
from tests.warehouse.exports.town import fill
from warehouse.exports.dataset import DatasetOptions
from warehouse.exports.folders import Publisher, export_dataset
from warehouse.home import Home

REPO = "datasets/town/harbour"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("exports")
    home = Home(str(place / "home"))
    fill(home)
    publisher = Publisher(command="precept export dataset")
    export_dataset(home, str(place / "data"), DatasetOptions(), publisher)
    return place / "data"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedHub]:
    """A hub that the library asks, in the name of a user without a login."""
    from huggingface_hub import constants

    with scripted_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def push(folder: Path, *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["push", str(folder), *arguments])
    return result.exit_code, result.stdout, result.stderr


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_export_is_pushed_whole_and_private(folder: Path, hub: ScriptedHub) -> None:
    code, out, told = push(folder, "town/harbour")
    assert code == 0, told
    assert f"{hub.url}/datasets/town/harbour (private)" in out
    assert hub.private == {REPO: True}
    assert hub.files[REPO] == contents(folder)
    assert f"Bearer {TOKEN}" in hub.tokens


def test_repository_that_is_there_is_replaced_only_when_told(
    folder: Path, hub: ScriptedHub
) -> None:
    before = {"sft/train-00009.parquet": b"of an earlier export", "README.md": b"mine"}
    hub.files[REPO], hub.private[REPO] = dict(before), True
    code, _, told = push(folder, "town/harbour")
    assert code == 2 and told.count("\n") == 1
    assert "town/harbour is there already: private, 2 files" in told
    assert "--force" in told and hub.files[REPO] == before
    assert push(folder, "town/harbour", "--force")[0] == 0
    assert hub.files[REPO] == contents(folder)
    # The Hub refuses a push if somebody has pushed between the look and it.
    assert hub.parents == ["0" * 40]


def test_nothing_is_shown_to_everybody_unless_told(folder: Path, hub: ScriptedHub) -> None:
    hub.files[REPO], hub.private[REPO] = {}, False
    code, _, told = push(folder, "town/harbour", "--force")
    assert code == 2 and "give --public as well" in told and not hub.files[REPO]
    assert push(folder, "town/other", "--public")[0] == 0
    assert hub.private["datasets/town/other"] is False


@pytest.mark.parametrize(
    ("settings", "repo", "sentence"),
    [
        ({"HF_TOKEN": ""}, "town/harbour", "there is no token"),
        ({"HF_TOKEN": TOKEN[:-1]}, "town/harbour", "does not know the token"),
        ({"HF_TOKEN": f"{TOKEN}\x01"}, "town/harbour", "characters that no token has"),
        ({"HF_TOKEN": f"{TOKEN}é"}, "town/harbour", "characters that no token has"),
        ({"faults": ['"license" is odd', "more"]}, "town/harbour", 'README.md.; "license" is odd;'),
        ({"ENDPOINT": "http://127.0.0.1:9"}, "town/harbour", "cannot be reached"),
        ({"HF_HUB_OFFLINE": True}, "town/harbour", "HF_HUB_OFFLINE is set"),
        ({}, "harbour", "give it as OWNER/NAME"),
        ({}, "town/har bour", "give it as OWNER/NAME"),
        ({"refusal": 403}, "others/harbour", "must not write to others/harbour"),
    ],
)
def test_what_keeps_an_export_from_the_hub_is_told_in_one_sentence_without_the_token(
    folder: Path,
    hub: ScriptedHub,
    settings: dict[str, Any],
    repo: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    for name, value in settings.items():
        if name == "HF_TOKEN":
            monkeypatch.setenv(name, value)
        else:
            monkeypatch.setattr(constants if name.isupper() else hub, name, value)
    code, out, told = push(folder, repo)
    assert code == 2 and told.count("\n") == 1 and sentence in told
    assert not any(hub.files.values())
    assert TOKEN[3:-1] not in out + told


def test_push_that_broke_off_is_done_by_the_same_command(folder: Path, hub: ScriptedHub) -> None:
    hub.files[REPO], hub.private[REPO] = {".gitattributes": b""}, True
    assert push(folder, "town/harbour")[0] == 0
    assert hub.files[REPO].keys() == contents(folder).keys() | {".gitattributes"}


def test_hidden_files_stay_here(folder: Path, hub: ScriptedHub, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    for place in (copy / ".env", copy / "sft" / ".env", copy / ".cache" / "x"):
        place.parent.mkdir(exist_ok=True)
        place.write_text("HF_TOKEN=hf_mine")
    assert push(copy, "town/harbour")[0] == 0
    assert hub.files[REPO] == contents(folder)


def test_a_folder_that_is_no_export_is_not_pushed(folder: Path, hub: ScriptedHub) -> None:
    code, _, told = push(folder / "sft", "town/harbour")
    assert code == 2 and "is no export of Precept's" in told
    assert not hub.tokens


def test_token_stands_in_nothing_that_the_command_leaves_behind(
    folder: Path, hub: ScriptedHub, tmp_path: Path
) -> None:
    hub.refusal = 500
    kept = {name: one for name, one in os.environ.items() if not name.startswith("HF_")}
    places = {name: str(tmp_path) for name in ("HF_HOME", "HOME", "TMPDIR")}
    ended = subprocess.run(
        [sys.executable, "-m", "flows", "push", str(folder), "town/harbour"],
        capture_output=True,
        text=True,
        env={**kept, **places, "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN},
    )
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert f"Bearer {TOKEN}" in hub.tokens
    left = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in (ended.stdout, ended.stderr, *left) if TOKEN in text]
