"""The example of specs/README.md works as printed, and its tables of templates are complete."""

import re
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

import specs
from flows.__main__ import app
from specs.adherence import load_adherence
from specs.criteria import judging_template, shipped_criteria
from specs.pack import load_pack
from specs.policy import PackError
from specs.template import TemplateKind, load_template, shipped_sets

README = (Path(specs.__file__).parent / "README.md").read_text(encoding="utf-8")
FILES = dict(
    re.findall(r"^`(library/\S+)`:\n\n```\w+\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
    return Path("library")


def test_the_example_passes_the_check_and_compiles_as_printed(folder: Path) -> None:
    assert len(FILES) == 3
    checked = CliRunner().invoke(app, ["policies", "check", str(folder)])
    assert checked.exit_code == 0
    assert f"$ precept policies check library\n{checked.stdout}```" in README
    assert f".text)\n{load_pack(folder).spec(['loans']).text}\n```" in README
    assert load_adherence(folder).styles.keys() == {"comply", "refuse", "safe_complete"}


def test_the_fault_is_told_as_printed(folder: Path) -> None:
    (folder / "loans.md").write_text(FILES["library/loans.md"].replace("-> L2", "-> L9"))
    with pytest.raises(PackError) as error:
        load_pack(folder)
    assert f"`precept: {error.value}`" in README


def test_the_worked_example_fits_the_last_rule_but_one(folder: Path) -> None:
    [example] = re.findall(r"^```\n(### Example: .*?)^```", README, re.DOTALL | re.MULTILINE)
    text = FILES["library/loans.md"].replace("\n## L3", f"\n{example}\n## L3")
    (folder / "loans.md").write_text(text)
    [worked] = load_pack(folder).rule("L2").examples
    assert worked.outcome == "refuse" and worked.because.startswith("A reader's loans")


def test_every_template_is_listed_with_its_placeholders() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ((?:`\w+` ?)+)\|", README, re.MULTILINE)
    kinds = get_args(TemplateKind)
    listed = {kind: set(re.findall(r"\w+", names)) for kind, names in rows if kind in kinds}
    shipped = {kind: load_template(kind, "spec_first").placeholders for kind in kinds}
    assert listed == shipped


def test_criterion_of_the_example_can_be_used_and_every_shipped_one_is_listed(
    tmp_path: Path,
) -> None:
    [(name, text)] = re.findall(
        r"^`prompts/(criteria/\S+)`:\n\n```\w+\n(.*?)^```", README, re.S | re.M
    )
    (tmp_path / "criteria").mkdir()
    (tmp_path / name).write_text(text, encoding="utf-8")
    template = judging_template(str(tmp_path), ["compliance", "brevity"])
    assert "\n## Brevity\nIs the answer as short" in template.text
    [table] = re.findall(r"\| criterion \| asks \|\n\|---\|---\|\n((?:\|.*\n)+)", README)
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(shipped_criteria())


def test_every_placeholder_and_every_set_is_explained() -> None:
    [table] = re.findall(r"\| placeholder \| value \|\n\|---\|---\|\n((?:\|.*\n)+)", README)
    explained = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    kinds = get_args(TemplateKind)
    assert explained == {
        x for kind in kinds for x in load_template(kind, "spec_first").placeholders
    }
    [table] = re.findall(r"\| set \| for \| templates \|\n\|---\|---\|---\|\n((?:\|.*\n)+)", README)
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(shipped_sets())
