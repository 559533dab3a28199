"""A relative path is looked up beside the recipe, then here, then in Precept's folder, then in
`$PRECEPT_DATA`."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from flows.recipe import load_recipe
from tasks.paths import PROJECT, Located, LocatedFile, LocatedFolder, bases, find, places


class Named(BaseModel):
    anything: Located = ""
    file: LocatedFile = ""
    folder: LocatedFolder = ""


def beside(place: Path, **names: str) -> Named:
    return Named.model_validate(names, context={"folder": str(place)})


def test_path_beside_the_recipe_becomes_absolute_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").touch()
    (tmp_path / "pack").mkdir()
    named = beside(tmp_path, anything="prompts.jsonl", file="prompts.jsonl", folder="pack")
    assert named.anything == named.file == str(tmp_path / "prompts.jsonl")
    assert named.folder == str(tmp_path / "pack")
    assert beside(tmp_path, anything="*.jsonl").anything == str(tmp_path / "*.jsonl")
    assert beside(tmp_path, anything="Qwen/Qwen3-8B").anything == "Qwen/Qwen3-8B"
    assert beside(tmp_path, anything="/elsewhere/x").anything == "/elsewhere/x"


def test_folder_does_not_pass_for_a_file_nor_a_file_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "harbour").mkdir()
    (tmp_path / "pack").touch()
    named = beside(tmp_path, file="harbour", folder="pack")
    assert (named.file, named.folder) == ("harbour", "pack")


def test_path_without_a_recipe_is_looked_up_when_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, data = tmp_path / "here", tmp_path / "data"
    for folder in (here, data):
        folder.mkdir()
        (folder / "both.txt").touch()
    (data / "there.txt").touch()
    monkeypatch.chdir(here)
    monkeypatch.setenv("PRECEPT_DATA", str(data))
    assert Named(anything="both.txt").anything == "both.txt"
    assert bases() == [here, PROJECT, data]
    assert find("both.txt") == here / "both.txt"
    assert find("pyproject.toml") == PROJECT / "pyproject.toml"
    assert find("there.txt") == data / "there.txt"
    assert find("nowhere.txt") is None
    assert all(str(place) in places() for place in (here, PROJECT, data))


def test_message_tells_that_no_data_folder_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRECEPT_DATA", raising=False)
    assert places().endswith("PRECEPT_DATA is unset")


def test_recipe_takes_its_pack_and_its_prompts_from_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    pack = tmp_path / "pack"
    pack.mkdir()
    for page in (PROJECT / "specs" / "harbour").glob("*.md"):
        (pack / page.name).write_text(page.read_text())
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "May I row?"}\n')
    file = tmp_path / "mine.toml"
    file.write_text(
        'pack = "pack"\n[[sources]]\nname = "mine"\n'
        'path = "prompts.jsonl"\ncategories = ["boats"]\n'
        '[engine]\nmodel = "infra/harbour/model"\n'
    )
    recipe = load_recipe(file)
    assert recipe.load_pack().id == "harbour"
    assert recipe.sources[0].path == str(tmp_path / "prompts.jsonl")
    # The scale model lies in Precept's own folder.
    assert recipe.engine.model_path == str(PROJECT / "infra/harbour/model")
