"""Packs are read whole, refused with file, line and remedy, and compiled to stable specs."""

from pathlib import Path

import pytest

import specs
from specs.pack import load_pack
from specs.policy import Outcome, Pack, PackError

STYLE = """---
id: town
title: The town
version: 1
---

# Principles

Help where the rules allow it.

# comply

Name what to take.

# refuse

Say sorry.

# safe_complete

Name who can help.
"""

BOATS = """---
id: boats
title: Boats
version: 1.10
comply: sound boats
refuse: leaking boats
---

# Terms

- **hull**: the shell of a boat

# Rules

## B1 Skiff (comply)

It is safe
on a calm day.

- Includes: skiff -> shore
- Excludes: rowing at night -> B2
- Case: may I row -> comply

## B2 Raft (refuse)

It leaks.

# Style

Be brief.
"""

FISH = """---
id: fish
title: Fish
version: 1
safe_complete: rare fish
---

# Rules

## F1 Cod (safe_complete)

Send them to the weaver.
"""


def write_pack(folder: Path, **changes: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in {"style": STYLE, "boats": BOATS, "fish": FISH, **changes}.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    return folder


def spec_ids(pack: Pack) -> dict[str, str]:
    return {name: pack.spec([name]).id for name in pack.policies}


def test_a_spec_holds_every_word_of_its_policy_and_only_the_summaries_of_others(
    tmp_path: Path,
) -> None:
    text = load_pack(write_pack(tmp_path)).spec(["boats"]).text
    assert text == "\n".join(
        [
            "# Policies",
            "- boats: comply sound boats; refuse leaking boats",
            "- fish: safe_complete rare fish",
            "# Principles",
            "Help where the rules allow it.",
            "# Style",
            "- comply: Name what to take.",
            "- refuse: Say sorry.",
            "- safe_complete: Name who can help.",
            "# Policy boats",
            "- hull: the shell of a boat",
            "- Skiff [B1, comply]: It is safe on a calm day.",
            "  Includes: skiff -> shore",
            "  Excludes: rowing at night (see B2)",
            "  Case: may I row (comply)",
            "- Raft [B2, refuse]: It leaks.",
            "Style: Be brief.",
        ]
    )


def test_a_version_is_kept_as_it_is_written(tmp_path: Path) -> None:
    assert load_pack(write_pack(tmp_path)).policies["boats"].version == "1.10"


def test_editing_a_rule_changes_the_spec_of_its_category_alone(tmp_path: Path) -> None:
    before = spec_ids(load_pack(write_pack(tmp_path)))
    edited = BOATS.replace("It leaks.", "It sinks.")
    after = spec_ids(load_pack(write_pack(tmp_path, boats=edited)))
    assert after["boats"] != before["boats"]
    assert after["fish"] == before["fish"]


@pytest.mark.parametrize(
    "changes",
    [
        {"boats": BOATS.replace("sound boats", "dry boats")},
        {"style": STYLE.replace("Say sorry.", "Say no.")},
    ],
    ids=["a summary", "the style"],
)
def test_editing_what_categories_share_changes_every_spec(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    before = spec_ids(load_pack(write_pack(tmp_path)))
    after = spec_ids(load_pack(write_pack(tmp_path, **changes)))
    assert not set(before.values()) & set(after.values())


def test_what_is_not_shown_to_a_model_changes_no_spec(tmp_path: Path) -> None:
    before = spec_ids(load_pack(write_pack(tmp_path)))
    edited = BOATS.replace("version: 1.10", "version: 2").replace("title: Boats", "title: Ships")
    assert spec_ids(load_pack(write_pack(tmp_path, boats=edited))) == before


def test_a_spec_of_several_categories_does_not_depend_on_their_order(tmp_path: Path) -> None:
    pack = load_pack(write_pack(tmp_path))
    both = pack.spec(["fish", "boats", "fish"])
    assert both == pack.spec(["boats", "fish"])
    assert both.rule_ids == ("B1", "B2", "F1")


def test_a_summary_spec_holds_no_rule(tmp_path: Path) -> None:
    spec = load_pack(write_pack(tmp_path)).spec([], detail="summary")
    assert spec.rule_ids == ()
    assert "Policy boats" not in spec.text and "leaking boats" in spec.text


@pytest.mark.parametrize(
    ("categories", "message"),
    [(["birds"], "no category 'birds'; it has boats, fish"), ([], "detail='summary'")],
)
def test_a_spec_of_no_known_category_is_refused(
    tmp_path: Path, categories: list[str], message: str
) -> None:
    with pytest.raises(PackError, match=message):
        load_pack(write_pack(tmp_path)).spec(categories)


FAULTS = {
    "no front matter": ("---\nid", "id", ":1: no front matter", "begin the file with"),
    "open front matter": ("boats\n---\n", "boats\n", ":1: front matter never ends", "close it"),
    "not yaml": ("comply: sound", "comply: sound: ", ":5: front matter is not YAML", "quote"),
    "control letter": ("title: Boats", "title: \x01", ":2: front matter is not YAML", "write"),
    "not a mapping": (
        BOATS[4 : BOATS.index("---\n\n")],
        "- boats\n",
        ":2: front matter is not 'key: value'",
        "write it so",
    ),
    "a nested value": ("title: Boats", "title: [a, b]", ":3: 'title' is not one", "once"),
    "a key twice": ("title: Boats", "title: A\ntitle: B", ":4: 'title' is not one", "once"),
    "an unknown key": ("title: Boats", "titel: Boats", ":3: unknown key 'titel'", "use id, title"),
    "no title": ("title: Boats\n", "", ":2: front matter has no 'title'", "add a line 'title: …'"),
    "an empty title": ("title: Boats", "title:", ":3: front matter has no 'title'", "add a line"),
    "an empty summary": ("comply: sound boats", "comply:", ":5: front matter has no", "add a line"),
    "no summary": (
        "comply: sound boats\nrefuse: leaking boats\n",
        "",
        ":2: no summary",
        "comply, refuse, safe_complete",
    ),
    "an unknown section": ("# Terms", "# Words", ":9: unknown section 'Words'", "use Terms"),
    "a bad term": ("- **hull**: the", "- hull, the", ":11: not a term", "write '- **term**"),
    "no rules": (BOATS[BOATS.index("# Rules") :], "", ":1: no rules", "add a section '# Rules'"),
    "text before a section": ("# Terms\n", "", ":10: text outside a rule", "begin '## K1"),
    "text outside a rule": ("# Rules\n", "# Rules\n\nStray.\n", ":15: text outside", "begin '##"),
    "a bad heading": ("## B1 Skiff (comply)", "## Skiff", ":15: not a rule", "write '## K1"),
    "an unknown outcome": ("(comply)\n", "(allow)\n", ":15: unknown outcome 'allow'", "use comply"),
    "a case of no outcome": ("-> comply", "-> allow", ":22: unknown outcome", "use comply"),
    "a case without a target": ("row -> comply", "row", ":22: Case without a target", "end it in"),
    "a bad line": ("- Case: may", "- Cases: may", ":22: not a line of a rule", "write 'Includes"),
    "a rule without text": ("It leaks.\n", "", ":24: rule B2 has no text", "say below it"),
    "a rule twice": ("## B2", "## B1", ":24: rule B1 is also in boats.md", "its own id"),
    "a rule of another": ("## B2", "## F1", ":10: rule F1 is also in boats.md", "its own id"),
    "an exclusion to nowhere": ("-> B2", "-> B7", ":21: an exclusion to 'B7'", "one of B1, B2"),
    "a code block": ("It leaks.", "It leaks.\n\n    Or so.", ":28: a code or HTML block", "write"),
    "a fence": ("It leaks.", "```\nIt leaks.\n```", ":26: a code or HTML block", "write para"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_policy_is_refused_with_file_line_and_remedy(tmp_path: Path, fault: str) -> None:
    old, new, where, remedy = FAULTS[fault]
    assert BOATS.count(old) >= 1
    folder = write_pack(tmp_path, boats=BOATS.replace(old, new, 1))
    file = folder / ("fish.md" if fault == "a rule of another" else "boats.md")
    with pytest.raises(PackError) as error:
        load_pack(folder)
    what, found_remedy = str(error.value).rsplit("; ", 1)
    assert f"{file}{where}" in what
    assert remedy in found_remedy


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
    with pytest.raises(PackError, match=r"ships.md:2: a second policy 'boats'; boats.md has"):
        load_pack(folder)


@pytest.mark.parametrize(
    ("style", "message"),
    [
        (STYLE.replace("# refuse", "# Refusing"), r"style.md:15: unknown section 'Refusing'; use"),
        (STYLE.replace("# Principles\n", ""), r"style.md:8: text before the first section; begin"),
        (STYLE.replace("Say sorry.\n", ""), r"style.md:1: no section 'refuse'; add '# refuse'"),
        (STYLE.replace("id: town\n", ""), r"style.md:2: front matter has no 'id'; add a line"),
    ],
)
def test_a_bad_style_page_is_refused_with_line_and_remedy(
    tmp_path: Path, style: str, message: str
) -> None:
    with pytest.raises(PackError, match=message):
        load_pack(write_pack(tmp_path, style=style))


def test_a_folder_that_is_no_pack_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"no policy pack at .*nowhere: give the folder"):
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
    assert len(set(spec_ids(pack).values())) == len(pack.policies) > 1
    for name, policy in pack.policies.items():
        spec = pack.spec([name])
        assert spec.rule_ids == tuple(rule.id for rule in policy.rules)
        assert all(f"[{rule.id}, {rule.outcome}]" in spec.text for rule in policy.rules)
        assert pack.rule(policy.rules[0].id) is policy.rules[0]
        assert {rule.outcome for rule in policy.rules} <= set(Outcome)
