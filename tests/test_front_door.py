"""The pages a newcomer reads: short, true, and generated where they list things."""

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from flows import reference
from flows.__main__ import app
from tasks import Config
from tasks.paths import PROJECT
from warehouse.catalog import connect, query_names
from warehouse.home import Home
from warehouse.tables import TABLES

README = (PROJECT / "README.md").read_text(encoding="utf-8")
PAGES = [
    *(PROJECT / name / "README.md" for name in (".", "flows", "tasks", "specs", "warehouse")),
    PROJECT / "infra" / "harbour" / "README.md",
    PROJECT / ".github" / "CONTRIBUTING.md",
]
TODAY = PROJECT / "tests" / "warehouses" / "schema_3"


def test_readme_is_short_and_opens_with_one_short_sentence() -> None:
    assert len(README.split()) <= 700
    sentence = README.split("\n\n")[1]
    assert sentence.count(". ") == 0 and len(sentence.split()) <= 25


def test_every_command_of_the_readme_exists() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    names |= {group.name for group in app.registered_groups}
    used = set(re.findall(r"(?:^|`)precept ([a-z]+)", README, re.MULTILINE))
    assert len(used) > 10 and used <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert all((page.parent / link).exists() for link in links), links
    paths = re.findall(r"`((?:flows|tasks|specs|warehouse|infra|tests)/[\w./-]*\w/?)`", text)
    missing = [path for path in paths if not (PROJECT / path).exists()]
    assert not [path for path in missing if "NAME" not in path]


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
    for key in ("generate.sampling", "sft.workers", "evaluate.multiturn", "ablate.arms"):
        assert f"### [{key}]" in keys
    tables = reference.tables()
    for name, table in TABLES.items():
        assert f"### {name}\n" in tables
        assert all(f"| `{column}` |" in tables for column in table.schema.names)
    assert all(f"| `{name}` |" in reference.questions() for name in query_names())


def test_field_or_column_without_a_sentence_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(Config):
        loud: int = 1
        """A field with a sentence."""
        silent: int = 2

    monkeypatch.setattr(reference, "Recipe", Silent)
    with pytest.raises(reference.MissingSentence, match="recipe key 'silent' has no sentence"):
        reference.recipe_keys()
    with pytest.raises(reference.MissingSentence, match=r"column Wordless\.b has no sentence"):
        reference.column_sentences(Wordless)


class Wordless(BaseModel):
    """A row class of which one field has no sentence."""

    a: str
    """A column."""
    b: str


def test_page_without_its_marks_is_refused() -> None:
    with pytest.raises(reference.MissingSentence, match="no lines '<!-- generated: tables -->'"):
        reference.with_part("# A page", "tables", "text")


def test_queries_worth_stealing_run_as_they_stand() -> None:
    page = (PROJECT / "warehouse" / "README.md").read_text(encoding="utf-8")
    part = page[page.index("<!-- queries -->") : page.index("<!-- end of queries -->")]
    queries = re.findall(r"```sql\n(.*?)```", part, re.DOTALL)
    assert len(queries) == 10
    connection = connect(Home(str(TODAY)))
    for query in queries:
        connection.sql(query).fetchall()
