"""`precept init` writes a project that runs as it is."""

import re
from pathlib import Path

import pytest

from flows.project import STARTER, write_project
from flows.recipe import Recipe, load_recipe
from tasks.data.candidates import read_source
from warehouse.catalog import connect
from warehouse.home import Home


def test_project_is_a_recipe_a_checked_pack_and_ten_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_project(tmp_path / "mine")
    assert all(file.is_file() for file in files)
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("mine/recipe.toml")
    pack = recipe.load_pack()
    assert list(pack.policies) == ["lamps", "tools"]
    prompts = [candidate for source in recipe.sources for candidate in read_source(source)]
    assert len(prompts) == 10 and not any(prompt.fault for prompt in prompts)
    assert {prompt.categories[0] for prompt in prompts} == set(pack.policies)


def test_recipe_of_a_project_names_every_section() -> None:
    text = (STARTER / "recipe.toml").read_text(encoding="utf-8")
    for name, field in Recipe.model_fields.items():
        if name != "name":
            assert f"[{name}]" in text or f"[[{name}]]" in text or f"{name} = " in text, name
        assert field.description


def test_sections_of_a_project_that_are_commented_out_are_valid(tmp_path: Path) -> None:
    write_project(tmp_path / "mine")
    file = tmp_path / "mine" / "recipe.toml"
    text, count = re.subn(r"^# (?=\[|[a-z_]+ = )", "", file.read_text(), flags=re.MULTILINE)
    assert count > 30
    file.write_text(text)
    recipe = load_recipe(file)
    assert recipe.sft and recipe.dpo and recipe.rl and recipe.evaluate and recipe.ablate


@pytest.mark.parametrize("name", ["full", "file"])
def test_project_is_written_into_a_new_or_empty_folder_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("a file")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="give a folder that is new or empty"):
        write_project(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "empty").mkdir()
    assert len(write_project(tmp_path / "empty")) == 7


@pytest.mark.slow
def test_project_comes_to_accepted_examples_of_both_policies(tmp_path: Path) -> None:
    from flows.refresh import refresh

    write_project(tmp_path / "mine")
    done = refresh(load_recipe(tmp_path / "mine" / "recipe.toml"), str(tmp_path / "home"))
    rows = connect(Home(done.home)).sql("SELECT categories[1], count(*) FROM examples GROUP BY 1")
    assert {category for category, _ in rows.fetchall()} == {"lamps", "tools"}
    assert done.num_examples > 5
