"""`precept policies import` and `precept policies export`, as they are seen from a terminal."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.__main__ import app
from flows.interchange import NOT_PLACED

PROMPT = """\
# Loud tools

## INSTRUCTIONS
Answer 0 or 1.

## DEFINITIONS
- **tool**: a thing with an engine

## VIOLATES (1)
- Asks for tools that wake the street

## SAFE (0)
- Asks for tools that are used by day
"""


def invoke(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["policies", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def prompt(tmp_path: Path) -> Path:
    path = tmp_path / "tools.txt"
    path.write_text(PROMPT, encoding="utf-8")
    return path


def test_imported_pack_passes_the_check_and_lists_what_it_lacks(
    prompt: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pack"
    code, out, err = invoke("import", prompt, folder)
    assert code == 0
    assert "reads as classifier; --kind names another" in err
    assert f"{folder}: 5 sections, 2 rules, 0 examples\n" in out
    assert "not placed:    1 × tells the classifier how to reply" in out
    assert (folder / NOT_PLACED).read_text(encoding="utf-8").startswith("4: Answer 0 or 1. (")
    code, out, err = invoke("check", folder)
    assert code == 0
    assert "loud_tools" in out
    assert NOT_PLACED not in err


def test_import_writes_into_new_folders_only(prompt: Path, tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    code, _, err = invoke("import", prompt, tmp_path / "pack")
    assert (code, list((tmp_path / "pack").iterdir())) == (2, [])
    assert "exists; give the name of a new folder" in err


def test_document_whose_form_does_not_tell_needs_a_kind(tmp_path: Path) -> None:
    source = tmp_path / "list.md"
    source.write_text("Noise: anything that wakes the street.\n", encoding="utf-8")
    code, _, err = invoke("import", source, tmp_path / "pack")
    assert (code, (tmp_path / "pack").exists()) == (2, False)
    assert "--kind taxonomy" in err
    code, out, _ = invoke("import", source, tmp_path / "pack", "--kind", "taxonomy")
    assert code == 0
    assert "each policy has one rule with the outcome refuse" in out
    assert not (tmp_path / "pack" / NOT_PLACED).exists()


def test_document_without_criteria_leaves_no_folder(tmp_path: Path) -> None:
    source = tmp_path / "empty.md"
    source.write_text("Nothing.\n", encoding="utf-8")
    code, _, err = invoke("import", source, tmp_path / "pack", "--kind", "classifier")
    assert (code, (tmp_path / "pack").exists()) == (2, False)
    assert f"{source}: the prompt has no criteria" in err


def test_export_prints_one_policy_and_writes_many() -> None:
    code, out, err = invoke("export", "specs/harbour", "boats", "--examples", "0")
    assert code == 0
    assert out.startswith("# Boats\n\n## INSTRUCTIONS\n")
    assert "## VIOLATES (1)\n- **B1 ferry** (safe_complete): ferry is smith work\n" in out
    assert err.startswith("precept: boats: about ")
    code, _, err = invoke("export", "specs/harbour")
    assert (code, "give --out FOLDER" in err) == (2, True)


def test_export_writes_a_file_for_each_policy(tmp_path: Path) -> None:
    code, _, _ = invoke("export", "specs/harbour", "--out", tmp_path / "prompts")
    names = {path.name for path in (tmp_path / "prompts").iterdir()}
    assert (code, {"boats.md", "gates.md"} <= names, "style.md" in names) == (0, True, False)


def test_export_names_the_categories_of_the_pack() -> None:
    code, _, err = invoke("export", "specs/harbour", "cars")
    assert (code, "no category 'cars'; use one of boats" in err) == (2, True)
