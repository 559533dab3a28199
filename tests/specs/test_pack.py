"""Packs are read whole, or refused with file, line and remedy."""

from pathlib import Path

import pytest

import specs
from specs.pack import load_pack
from specs.policy import Outcome, PackError
from tests.specs.town import BOATS, STYLE, write_pack


def test_a_version_is_kept_as_it_is_written(tmp_path: Path) -> None:
    assert load_pack(write_pack(tmp_path)).policies["boats"].version == "1.10"


FAULTS = {
    "no front matter": ("---\nid", "id", ":1: no front matter", "begin the file with"),
    "open front matter": ("boats\n---\n", "boats\n", ":1: front matter never ends", "close it"),
    "not yaml": ("comply: sound", "comply: sound: ", ":5: front matter is not YAML", "quote"),
    "control letter": ("title: Boats", "title: \x01", ":2: front matter is not YAML", "write"),
    "not a mapping": (
        BOATS[4 : BOATS.index("---\n\n")],
        "- boats\n",
        ":2: front matter must be 'key: value' lines",
        "write one for each key",
    ),
    "a nested value": ("title: Boats", "title: [a, b]", ":3: 'title' must have one value", "once"),
    "a key twice": (
        "title: Boats",
        "title: A\ntitle: B",
        ":4: 'title' must have one value",
        "once",
    ),
    "an unknown key": ("title: Boats", "titel: Boats", ":3: unknown key 'titel'", "use id, title"),
    "no title": ("title: Boats\n", "", ":2: front matter has no 'title'", "add a line 'title: …'"),
    "an empty title": ("title: Boats", "title:", ":3: front matter has no 'title'", "add a line"),
    "an empty summary": ("comply: sound boats", "comply:", ":5: front matter has no", "add a line"),
    "no summary": (
        "comply: sound boats\nrefuse: leaking boats\n",
        "",
        ":2: front matter has no summary",
        "comply, refuse, safe_complete",
    ),
    "an unknown section": ("# Terms", "# Words", ":9: unknown section 'Words'", "use Terms"),
    "a bad term": ("- **hull**: the", "- hull, the", ":11: not a term", "write '- **term**"),
    "no rules": (BOATS[BOATS.index("# Rules") :], "", ":1: no rules", "add a section '# Rules'"),
    "text before a section": (
        "# Terms\n",
        "",
        ":10: text before the first section: '**hull**",
        "'# Terms', '# Rules'",
    ),
    "text outside a rule": (
        "# Rules\n",
        "# Rules\n\nStray.\n",
        ":15: text before the first rule: 'Stray.'",
        "'## K1 Title",
    ),
    "a bad heading": ("## B1 Skiff (comply)", "## Skiff", ":15: not a rule", "write '## K1"),
    "an unknown outcome": ("(comply)\n", "(allow)\n", ":15: unknown outcome 'allow'", "use comply"),
    "a case of no outcome": ("-> comply", "-> allow", ":22: unknown outcome", "use comply"),
    "a case without a target": ("row -> comply", "row", ":22: Case without a target", "end it in"),
    "a bad line": ("- Case: may", "- Cases: may", ":22: not a line of a rule", "write 'Includes"),
    "a rule without text": (
        "It leaks.\n",
        "",
        ":24: rule B2 has no text",
        "write below its heading",
    ),
    "a rule twice": ("## B2", "## B1", ":24: rule B1 is also in boats.md", "its own id"),
    "a rule of another": ("## B2", "## F1", ":10: rule F1 is also in boats.md", "its own id"),
    "an exclusion to nowhere": ("-> B2", "-> B7", ":21: exclusion points to 'B7'", "one of B1, B2"),
    "a code block": (
        "It leaks.",
        "It leaks.\n\n    Or so.",
        ":28: a code or HTML block",
        "without indentation",
    ),
    "a fence": (
        "It leaks.",
        "```\nIt leaks.\n```",
        ":26: a code or HTML block",
        "write it as a paragraph",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_policy_is_refused_with_file_line_and_remedy(tmp_path: Path, fault: str) -> None:
    old, new, where, remedy = FAULTS[fault]
    assert BOATS.count(old) >= 1
    folder = write_pack(tmp_path, boats=BOATS.replace(old, new, 1))
    file = folder / ("fish.md" if fault == "a rule of another" else "boats.md")
    with pytest.raises(PackError) as error:
        load_pack(folder)
    stated, stated_remedy = str(error.value).rsplit("; ", 1)
    assert stated.startswith(f"{file}{where}")
    assert remedy in stated_remedy


def test_text_of_another_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    folder = write_pack(tmp_path)
    (folder / "boats.md").write_bytes(BOATS.replace("It leaks", "Caf\xe9").encode("latin-1"))
    with pytest.raises(PackError, match=r"boats.md:26: not UTF-8 .*save the file as UTF-8"):
        load_pack(folder)


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    folder = write_pack(tmp_path, boats="\ufeff" + BOATS)
    assert "boats" in load_pack(folder).policies


def test_a_second_policy_of_the_same_id_is_refused(tmp_path: Path) -> None:
    folder = write_pack(tmp_path, ships=BOATS)
    with pytest.raises(PackError, match=r"ships.md:2: boats.md also has the id 'boats'; give each"):
        load_pack(folder)


@pytest.mark.parametrize(
    ("style", "message"),
    [
        (STYLE.replace("# refuse", "# Refusing"), r"style.md:15: unknown section 'Refusing'; use"),
        (
            STYLE.replace("# Principles\n", ""),
            r"style.md:8: text before the first section: .*; put it below one of '# P",
        ),
        (STYLE.replace("Say sorry.\n", ""), r"style.md:1: no section 'refuse'; add '# refuse'"),
        (STYLE.replace("id: town\n", ""), r"style.md:2: front matter has no 'id'; add a line"),
    ],
)
def test_a_bad_style_page_is_refused_with_line_and_remedy(
    tmp_path: Path, style: str, message: str
) -> None:
    with pytest.raises(PackError, match=message):
        load_pack(write_pack(tmp_path, style=style))


def test_a_folder_that_lacks_a_part_of_a_pack_is_refused_by_that_part(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"no policy pack at .*nowhere; give the folder"):
        load_pack(tmp_path / "nowhere")
    with pytest.raises(PackError, match=r"no style\.md; add it"):
        load_pack(tmp_path)
    (tmp_path / "style.md").write_text(STYLE)
    with pytest.raises(PackError, match="no policy; add one Markdown file"):
        load_pack(tmp_path)


SHIPPED = sorted(path.parent for path in Path(specs.__file__).parent.glob("*/style.md"))


@pytest.mark.parametrize("folder", SHIPPED, ids=[folder.name for folder in SHIPPED])
def test_every_shipped_pack_compiles(folder: Path) -> None:
    pack = load_pack(folder)
    assert len({pack.spec([name]).id for name in pack.policies}) == len(pack.policies) > 1
    for name, policy in pack.policies.items():
        spec = pack.spec([name])
        assert spec.rule_ids == tuple(rule.id for rule in policy.rules)
        assert all(f"[{rule.id}, {rule.outcome}]" in spec.text for rule in policy.rules)
        assert pack.rule(policy.rules[0].id) is policy.rules[0]
        assert {rule.outcome for rule in policy.rules} <= set(Outcome)
