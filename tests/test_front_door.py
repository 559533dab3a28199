"""The pages a newcomer reads: short, true, and generated where they list things."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from flows import reference
from flows.__main__ import app
from tasks import Config
from tasks.paths import PROJECT
from warehouse import catalog
from warehouse.catalog import connect, query_names, read
from warehouse.home import Home
from warehouse.tables import TABLES, Table

README = (PROJECT / "README.md").read_text(encoding="utf-8")
PAGES = [
    *(PROJECT / name / "README.md" for name in (".", "flows", "tasks", "specs", "warehouse")),
    PROJECT / "infra" / "harbour" / "README.md",
    PROJECT / "infra" / "OPERATIONS.md",
    PROJECT / ".github" / "CONTRIBUTING.md",
    PROJECT / "CHANGELOG.md",
]
TODAY = PROJECT / "tests" / "warehouses" / "schema_7"


def test_readme_is_short_and_opens_with_one_short_sentence() -> None:
    assert len(README.split()) <= 700
    sentence = README.split("\n\n")[1]
    assert sentence.endswith(".") and sentence.count(". ") == 0 and len(sentence.split()) <= 25


def test_first_screen_of_the_readme_holds_the_demo_and_what_to_change() -> None:
    lines = README.splitlines()[:40]
    assert all(len(line) <= 120 for line in lines)
    screen = "\n".join(lines)
    for part in ("train_rl ↺", "&& make demo", "accepted", "SFT+RL", "precept init FOLDER"):
        assert part in screen
    assert len([line for line in lines if line.startswith("- ")]) == 5


def test_every_command_of_the_readme_exists() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    names |= {group.name for group in app.registered_groups}
    used = set(re.findall(r"(?:^|`|&& )precept ([a-z]+)", README, re.MULTILINE))
    assert len(used) > 10 and used <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert all((page.parent / link).exists() for link in links), links
    paths = re.findall(r"`((?:flows|tasks|specs|warehouse|infra|tests)/[\w./-]*\w/?)`", text)
    missing = [path for path in paths if not (PROJECT / path).exists()]
    assert not [path for path in missing if "NAME" not in path]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_every_link_within_a_page_leads_to_a_heading(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    # A forge makes an anchor of a heading: small letters, no punctuation, hyphens for spaces.
    anchors = {re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


def test_contributing_is_one_page_and_the_workflow_runs_its_commands() -> None:
    page = (PROJECT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert len(page.splitlines()) <= 80
    workflow = (PROJECT / ".github" / "workflows" / "check.yml").read_text(encoding="utf-8")
    [job] = yaml.safe_load(workflow)["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make check", "make test"]


def test_generated_parts_are_as_the_code_is_now() -> None:
    assert reference.stale_parts() == [], "run make reference"


def test_generated_parts_name_every_key_column_and_question() -> None:
    keys = reference.recipe_keys()
    for key in ("engine", "generate.sampling", "midtrain.workers", "evaluate.multiturn"):
        assert f"### `[{key}]`" in keys
    tables = reference.tables()
    for name, table in TABLES.items():
        assert f"### {name}\n" in tables
        assert all(f"| `{column}` |" in tables for column in table.schema.names)
    assert all(f"| `{name}` |" in reference.questions() for name in query_names())


class Silent(Config):
    """A configuration of which one key has no sentence."""

    loud: int = 1
    """A key with a sentence."""
    silent: int = 2


class Outer(Config):
    """A recipe that holds it in a section."""

    inner: list[Silent] = []
    """A section."""


@dataclass(frozen=True)
class Wordless:
    """A row class of which one column has no sentence."""

    a: str
    """A column with a sentence."""
    b: str


@pytest.mark.parametrize("recipe", [Silent, Outer])
def test_key_without_a_sentence_is_refused(
    recipe: type[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "Recipe", recipe)
    with pytest.raises(ValueError, match="recipe key 'silent' has no sentence"):
        reference.recipe_keys()


def test_column_without_a_sentence_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "TABLES", {"wordless": Table("wordless", Wordless, ("a",))})
    with pytest.raises(ValueError, match=r"column Wordless\.b has no sentence"):
        reference.tables()


def test_question_without_a_sentence_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "query_text", lambda name: "SELECT 1\n-- Too late.")
    with pytest.raises(ValueError, match="question 'acceptance_by_category' has no sentence"):
        reference.questions()


def test_new_key_makes_its_page_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    class Longer(reference.Recipe):
        """A recipe with one more key."""

        added: int = 1
        """A key that the page does not have."""

    monkeypatch.setattr(reference, "Recipe", Longer)
    assert "recipe keys" in reference.stale_parts()


def test_keys_are_written_as_a_recipe_writes_them() -> None:
    rows = {row.split("`")[1]: row for row in reference.recipe_keys().splitlines() if "| `" in row}
    assert "| true or false | `false` |" in rows["show_metadata"]
    assert '| `"race"` or `"full"` | `"race"` |' in rows["mode"]
    assert "| text | – |" in rows["pack"]
    assert "\\<think>" in rows["reasoning_parser"]


def test_page_without_its_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no lines '<!-- generated: tables -->'"):
        reference.with_part("# A page", "tables", "text")


def test_queries_worth_stealing_run_as_they_stand() -> None:
    page = (PROJECT / "warehouse" / "README.md").read_text(encoding="utf-8")
    part = page[page.index("<!-- queries -->") : page.index("<!-- end of queries -->")]
    queries = re.findall(r"```sql\n(.*?)```", part, re.DOTALL)
    assert len(queries) == 10
    connection = connect(Home(str(TODAY)))
    for query in queries:
        read(connection, query).fetchall()
