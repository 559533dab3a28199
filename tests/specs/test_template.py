"""Templates of one's own: found, mixed with a shipped set, and refused with every fault at once."""

from pathlib import Path
from typing import get_args

import pytest

from specs.policy import Spec
from specs.prompts import generator_messages
from specs.reasoning import find_dangling
from specs.template import (
    TemplateError,
    TemplateKind,
    check_templates,
    forget_templates,
    load_template,
    shipped_sets,
)

GENERATOR = "=== system ===\nYou know this.\n{{spec}}\n=== conversation ===\n"
SPEC = Spec(categories=("boats",), detail="full", text="Row by day.", rule_ids=())


@pytest.fixture(autouse=True)
def afresh() -> None:
    forget_templates()


def put(folder: Path, kind: str, text: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / f"{kind}.md").write_text(text, encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize("name", shipped_sets())
def test_every_shipped_set_passes_the_check(name: str) -> None:
    check_templates(name)


def test_folder_overrides_a_set_and_the_set_has_the_rest(tmp_path: Path) -> None:
    folder = put(tmp_path / "mine", "generator", GENERATOR)
    check_templates(folder)
    assert load_template("generator", folder).text == GENERATOR
    assert load_template("judge", folder) == load_template("judge", "spec_first")
    assert load_template("judge", [folder, "paper"]) == load_template("judge", "paper")
    assert load_template("assign", [folder, "paper"]) == load_template("assign", "spec_first")


def test_id_is_the_text_and_neither_the_folder_nor_the_set(tmp_path: Path) -> None:
    shipped = load_template("judge", "paper")
    folder = put(tmp_path / "moved", "judge", shipped.text)
    assert load_template("judge", folder).id == shipped.id
    other = put(tmp_path / "other", "judge", shipped.text.replace("First", "At first"))
    assert load_template("judge", other).id != shipped.id


def test_edited_file_is_read_again_by_the_next_run_alone(tmp_path: Path) -> None:
    folder = put(tmp_path / "mine", "generator", GENERATOR)
    first = load_template("generator", folder)
    put(tmp_path / "mine", "generator", GENERATOR.replace("know", "recall"))
    assert load_template("generator", folder) == first
    forget_templates()
    assert load_template("generator", folder) != first


@pytest.mark.parametrize(
    ("kind", "text", "fault"),
    [
        ("judge", " \n", "judge.md:1: the file is empty"),
        (
            "classes",
            "=== user ===\n{{conversation}}\n",
            "classes.md:2: nothing shows the model the answer; add {{answer}}",
        ),
        (
            "classes",
            "=== user ===\n{{conversation}}\n{{answer}}\n{{spec}}\n",
            "classes.md:4: {{spec}} is no placeholder of classes; use {{conversation}}, {{answer}}",
        ),
        (
            "classes",
            "=== user ===\n{{conversation}}{{ answer }}\n",
            "classes.md:2: {{ answer }} is no placeholder of classes",
        ),
        (
            "classes",
            "=== system ===\n=== user ===\n{{conversation}}{{answer}}\n=== system ===\n",
            "classes.md:4: a system section stands first and alone",
        ),
        (
            "classes",
            "=== system ===\n{{conversation}}{{answer}}\n",
            "classes.md:1: no section === user ===",
        ),
        (
            "classes",
            "=== sytem ===\nSort.\n=== user ===\n{{conversation}}{{answer}}\n",
            "classes.md:1: unknown role 'sytem'; use one of system, user, assistant",
        ),
        (
            "classes",
            "==user==\n{{conversation}}{{answer}}\n",
            "classes.md:1: '==user==' is no section; write it === user ===",
        ),
        (
            "classes",
            "Sort.\n=== user ===\n{{conversation}}{{answer}}\n",
            "classes.md:1: text before the first section",
        ),
        (
            "classes",
            "=== conversation ===\n{{conversation}}{{answer}}\n",
            "classes.md:1: unknown role 'conversation'",
        ),
        (
            "generator",
            "=== system ===\n{{spec}}\n=== user ===\nAnswer.\n",
            "generator.md:4: nothing shows the model the conversation; add {{conversation}} or",
        ),
        (
            "generator",
            "=== system ===\n{{spec}}\n=== conversation ===\n\nThink first.\n",
            "generator.md:5: text in section conversation would be lost, as the turns take its "
            "place: 'Think first.'; put it under another role",
        ),
        (
            "generator",
            "=== user ===\n{{spec}}{{conversation}}\n=== conversation ===\n",
            "generator.md:3: the conversation stands in the template twice",
        ),
        (
            "generator",
            "=== user ===\n{{spec}}\n=== conversation ===\n=== conversation ===\n",
            "generator.md:4: the conversation stands in the template twice",
        ),
        ("jugde", "=== user ===\n", "jugde.md: not the name of a template; did you mean judge.md?"),
    ],
)
def test_fault_is_told_with_file_line_and_remedy(
    kind: str, text: str, fault: str, tmp_path: Path
) -> None:
    folder = put(tmp_path / "mine", kind, text)
    with pytest.raises(TemplateError) as caught:
        check_templates(folder)
    assert str(caught.value).startswith(f"{folder}/{fault}")


def test_all_faults_of_a_folder_are_told_at_once(tmp_path: Path) -> None:
    put(tmp_path / "mine", "judge", "")
    (tmp_path / "mine" / "assign.md").write_bytes(b"\xff\xfe")
    folder = put(tmp_path / "mine", "classes", "=== user ===\n{{spec}}\n")
    with pytest.raises(TemplateError) as caught:
        check_templates(folder)
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    assert [sum(f"{name}.md" in line for line in lines) for name in ("assign", "judge")] == [1, 1]


def test_underlined_heading_of_markdown_is_text_and_no_section(tmp_path: Path) -> None:
    text = "=== user ===\nThe chat\n========\n{{conversation}}\n{{answer}}\n"
    folder = put(tmp_path / "mine", "classes", text)
    check_templates(folder)
    [turn] = load_template("classes", folder).fill({"conversation": "Hi", "answer": "Yes"})
    assert turn["content"] == "The chat\n========\nHi\nYes"


@pytest.mark.parametrize("name", ["nowhere", "spec_frist"])
def test_name_of_no_set_and_no_folder_is_refused(name: str) -> None:
    with pytest.raises(TemplateError, match=f"no templates at {name}: .*safeguard, spec_first"):
        check_templates(name)


def test_generator_without_a_system_section_keeps_the_systems_text_of_a_prompt(
    tmp_path: Path,
) -> None:
    text = "=== user ===\n{{spec}}\n=== conversation ===\n"
    template = load_template("generator", put(tmp_path / "mine", "generator", text))
    turns = generator_messages(
        template,
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "May I row?"}],
        spec=SPEC,
    )
    assert [(turn["role"], turn["content"]) for turn in turns] == [
        ("system", "Be kind."),
        ("user", "Row by day."),
        ("user", "May I row?"),
    ]


@pytest.mark.parametrize("kind", get_args(TemplateKind))
def test_what_rows_share_stands_before_what_they_do_not(kind: TemplateKind) -> None:
    text = load_template(kind, "spec_first").text
    shared = [x for x in ("{{spec}}", "{{categories}}", "{{propositions}}") if x in text]
    starts = (
        *("=== conversation", "{{conversation}}", "{{excerpts}}"),
        *("{{rule}}", "{{place}}", "{{subject}}"),
    )
    own = [x for x in starts if x in text]
    assert own and all(text.index(a) < text.index(b) for a in shared for b in own)


def test_words_of_the_generator_do_not_dangle_if_a_model_repeats_them() -> None:
    assert find_dangling(load_template("generator", "spec_first").text) is None
