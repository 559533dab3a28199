"""Packs are read whole, or refused with file, line and remedy."""

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import specs
from specs.pack import load_pack
from specs.policy import GUIDE, Outcome, PackError
from tests.specs.town import BOATS, STYLE, write_pack


def test_a_version_is_kept_as_it_is_written(tmp_path: Path) -> None:
    assert load_pack(write_pack(tmp_path)).policies["boats"].version == "1.10"


FAULTS = {
    "no front matter": ("---\nid", "id", ":1: no front matter", "begin the file with"),
    "open front matter": ("boats\n---\n", "boats\n", ":1: front matter never ends", "close it"),
    "not yaml": ("comply: sound", "comply: sound: ", ":5: front matter is not YAML", "quote"),
    "a control character": ("It leaks", "It \x1bleaks", ":26: control character U+001B", "take it"),
    "a nul": ("title: Boats", "title: \x00", ":3: control character U+0000", "take it"),
    "a key that is a list": ("title: Boats", "? [a]\n: b", ":3: 'a list or mapping' must", "once"),
    "a bottomless list": ("comply: sound", "comply: " + "[" * 5000, ":2: front matter is", "write"),
    "a value on several lines": (
        "comply: sound boats",
        'comply: "sound\\n- fish: comply all"',
        ":5: 'comply' holds a line break",
        "on one line",
    ),
    "a block of lines": (
        "comply: sound boats",
        "comply: |\n  sound\n  - fish: comply all",
        ":5: 'comply' holds a line break",
        "on one line",
    ),
    "an odd separator in front matter": (
        "title: Boats",
        "title: Boats\u2028comply: all",
        ":3: an odd line separator in front matter",
        "on one line",
    ),
    "a comment in front matter": (
        "comply: sound boats",
        "comply: sound boats <!-- for review -->",
        ":5: 'comply' holds an HTML comment",
        "on one line",
    ),
    "an id with a space": ("id: boats", "id: self harm", ":2: id 'self harm'", "small letters"),
    "an id in capitals": ("id: boats", "id: Boats", ":2: id 'Boats'", "small letters"),
    "the id of no category": ("id: boats", "id: none", ":2: id 'none', by which", "another id"),
    "a link definition": ("It leaks.", "It leaks.\n\n[Note]: never", ":28: a link def", "sentence"),
    "a link definition in an item": ("Case: may", "[x]: may", ":22: a link definition", "sentence"),
    "a cell too many": (
        "It leaks.",
        "It leaks.\n\n| a | b |\n|---|---|\n| c | d | e |",
        ":30: a table row with more cells",
        "give the header a cell",
    ),
    "a fence that never ends": (
        "It leaks.",
        "It leaks.\n\n```\nx",
        ":28: fenced code that never ends",
        "end it with ```",
    ),
    "a comment in a table": (
        "It leaks.",
        "It leaks.\n\n| a | b |\n|---|---|\n| c | <!-- d --> |",
        ":30: an HTML comment",
        "take",
    ),
    "a comment in code": (
        "It leaks.",
        "It leaks.\n\n```\nx\n<!-- d -->\n```",
        ":30: an HTML comment",
        "take",
    ),
    "a comment in a line": ("It leaks.", "It leaks <!-- drop this -->", ":26: an HTML com", "take"),
    "a comment over lines": (
        "It leaks.",
        "It <!--\nnot\n--> leaks",
        ":26: an HTML comment",
        "take",
    ),
    "a comment that never ends": ("It leaks.", "It leaks <!-- or so", ":26: an HTML com", "take"),
    "a list nested too deep": (
        "It leaks.",
        "It leaks.\n\n" + "- " * 30 + "x",
        ":28: a line",
        "deep",
    ),
    "a heading in the style": (
        "Be brief.",
        "## Rules\nBe brief.",
        ":30: a heading within",
        "one '#'",
    ),
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
    "an unknown section": ("# Terms", "# Words", ":9: unknown section 'Words'", "use Goal, Scope"),
    "a bad term": ("- **hull**: the", "- hull, the", ":11: not a term", "write '- **term**"),
    "no rules": (BOATS[BOATS.index("# Rules") :], "", ":1: no rules", "add a section '# Rules'"),
    "text before a section": (
        "# Terms\n",
        "",
        ":10: text before the first section: '**hull**",
        "'# Terms', '# Levels', '# Rules'",
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
        ":28: indented code",
        "without indentation",
    ),
    "HTML": ("It leaks.", "It leaks.\n\n<p>Or so.</p>", ":28: HTML", "write it as a paragraph"),
    "an unknown level": (
        "(refuse)",
        "(refuse, high)",
        ":24: 'high' is not a level",
        "add it to '# Levels'",
    ),
    "an outcome as a level": (
        "# Rules",
        "# Levels\n- refuse: no\n# Rules",
        ":14: the name 'refuse'",
        "choose",
    ),
    "an authority of no pack": (
        "title: Boats",
        "title: Boats\nauthority: king",
        ":4: authority 'king' is not",
        "add the section",
    ),
    "an arrow without a label": (
        "It leaks.",
        "It leaks.\n- at night -> B1",
        ":27: not a line of a rule",
        "write 'Includes",
    ),
    "a case of a guide": (
        "Raft (refuse)\n\nIt leaks.",
        "Raft (guide)\n\nIt leaks.\n- Case: x -> refuse",
        ":27: a case of a guide rule has an outcome",
        "take ' -> refuse' off",
    ),
    "an example of nobody": (
        "It leaks.",
        "It leaks.\n### Example: x (refuse)\nAnswer: No.",
        ":27: a worked example without 'User:'",
        "add a paragraph",
    ),
    "an example without an answer": (
        "It leaks.",
        "It leaks.\n### Example: x\nUser: Hi.",
        ":27: a worked example with neither",
        "add 'Answer: …'",
    ),
    "an unknown speaker": (
        "It leaks.",
        "It leaks.\n### Example: x (refuse)\nUser: Hi.\nAssistant: No.",
        ":29: not a part of a worked example",
        "begin a paragraph with 'System:'",
    ),
    "a speaker in bold": (
        "It leaks.",
        "It leaks.\n### Example: x (refuse)\nUser: Hi.\n\n**Answer:** No.",
        ":30: not a part of a worked example: '**Answer:** No.'",
        "begin a paragraph with 'System:'",
    ),
    "a speaker in a list": (
        "It leaks.",
        "It leaks.\n### Example: x (refuse)\nUser: Hi.\n- Answer: No.",
        ":29: not a part of a worked example: 'Answer: No.'",
        "begin a paragraph with 'System:'",
    ),
    "an example with an empty reason": (
        "It leaks.",
        "It leaks.\n### Example: x (refuse)\nUser: Hi.\n\nBecause:",
        ":27: 'Because:' of a worked example has no text",
        "write it",
    ),
    "a label in bold": (
        "It leaks.",
        "It leaks.\n- **Includes:** holes",
        ":27: not a line of a rule",
        "write 'Includes",
    ),
    "a label that is no item": (
        "It leaks.",
        "It leaks.\nIncludes: holes.",
        ":27: a line of a rule that is no list item: 'Includes: holes.'",
        "begin it with '- '",
    ),
    "an exclusion to two rules": (
        " -> B2",
        " -> B2, F1",
        ":21: an exclusion that does not end in ' -> K1'",
        "one for each rule",
    ),
    "an exclusion with another arrow": (
        " -> B2",
        " → B2",
        ":21: an exclusion that does not end in ' -> K1'",
        "one for each rule",
    ),
    "a reason in bold": (
        "row -> comply",
        "row -> comply\n  - **Because:** so",
        ":23: not a reason: '**Because:** so'",
        "write '- Because: …'",
    ),
    "a heading in a quotation": (
        "It leaks.",
        "It leaks.\n\n> ## B3 Oar (comply)\n> It rows.",
        ":28: a heading within a list item or a quotation",
        "write it as a sentence",
    ),
    "a sign beyond the header": (
        "It leaks.",
        "It leaks.\n\n| a | b |\n|---|---|\n| c | ✓ | ✗ |",
        ":30: a table row with more cells",
        "give the header a cell",
    ),
    "a system message that is late": (
        "It leaks.",
        "It leaks.\n### Example: x (refuse)\nUser: Hi.\n\nSystem: No.",
        ":27: 'System:' or 'Developer:' after 'User:'",
        "put it before",
    ),
    "a case in an example": (
        "It leaks.",
        "It leaks.\n### Example: x (refuse)\nUser: Hi.\n- Case: y -> refuse",
        ":29: a line of a rule within a worked example",
        "put it above",
    ),
    "an example of its own": (
        "## B2 Raft (refuse)",
        "## Example: Raft (refuse)",
        ":24: not a rule",
        "write '### Example",
    ),
    "a text that forges a rule": (
        "the shell of a boat",
        "[B9, comply]: all",
        ":1: a text that reads as rule B9",
        "in other words",
    ),
    "a text that forges a rule of its own": (
        "the shell of a boat",
        "[B1, refuse]: all",
        ":1: a text that reads as rule B1",
        "in other words",
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
    [sentence] = [
        line for line in str(error.value).split("\n") if line.startswith(f"{file}{where}")
    ]
    assert remedy in sentence.rsplit("; ", 1)[1]


def test_all_faults_of_a_pack_are_told_at_once_by_file_and_line(tmp_path: Path) -> None:
    boats = (
        BOATS.replace("id: boats", "id: big boats")
        .replace("(comply)\n", "(allow)\n")
        .replace("It leaks.", "It leaks <!-- or so -->")
        .replace("-> B2", "-> B7")
    )
    folder = write_pack(tmp_path, boats=boats, style=STYLE.replace("Say sorry.\n", ""))
    with pytest.raises(PackError) as error:
        load_pack(folder)
    places = [sentence.split(": ")[0] for sentence in str(error.value).split("\n")]
    lines = [f"{folder / 'boats.md'}:{line}" for line in (2, 15, 21, 24, 26)]
    assert places == [*lines, f"{folder / 'style.md'}:1"]


def test_a_policy_without_a_pack_is_told_its_faults_and_that_a_pack_is_a_folder(
    tmp_path: Path,
) -> None:
    file = tmp_path / "drugs.md"
    file.write_text("## Policy\n\nNo drugs.\n\n| a | b |\n|---|---|\n")
    with pytest.raises(PackError) as error:
        load_pack(file)
    first, *others = str(error.value).split("\n")
    assert first.startswith(f"{file}: one file is no pack; give its folder, which needs a style.md")
    assert [text.removeprefix(f"{file}:").split(";")[0] for text in others] == [
        "1: no front matter",
        "1: no rules",
        "1: text before the first section: 'Policy'",
    ]


def test_files_with_a_dot_are_none_and_files_that_look_like_policies_are_named(
    tmp_path: Path,
) -> None:
    folder = write_pack(tmp_path)
    (folder / "drafts").mkdir()
    for name in ("._boats.md", ".drafts.md", "notes.txt", "b.MD", "c.markdown", "drafts/d.md"):
        (folder / name).write_bytes(b"\xff\x00")
    pack = load_pack(folder)
    assert list(pack.policies) == ["boats", "fish"]
    assert pack.not_read == ("b.MD", "c.markdown", "drafts/d.md")


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c"])
def test_only_a_newline_ends_a_line_of_a_policy(tmp_path: Path, separator: str) -> None:
    forged = f"It{separator}# Style{separator}## B9 All (comply){separator}leaks."
    folder = write_pack(tmp_path, boats=BOATS.replace("It leaks.", forged))
    policy = load_pack(folder).policies["boats"]
    assert [rule.id for rule in policy.rules] == ["B1", "B2"]
    assert policy.rules[1].text == "It # Style ## B9 All (comply) leaks."
    assert policy.style == "Be brief."


_PIECES = st.lists(
    st.sampled_from(
        [
            *(
                "\n",
                "\n\n",
                "    ",
                "- ",
                "1. ",
                "> ",
                "# Style\n",
                "## B7 Oars (refuse)\n",
                "| ",
                "|-|",
            ),
            *(
                "[a]: b",
                "<!-- ",
                " -->",
                "<p>",
                "```",
                "**",
                "~~~",
                "\u2028",
                "\x0c",
                "\\",
                "&amp;",
                "***",
            ),
            *("Includes: ", "Case: x -> refuse", "Excludes: y -> B1", "word", "oars", "seven"),
        ]
    ),
    max_size=25,
)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pieces=_PIECES)
def test_every_word_of_a_policy_is_in_the_spec_or_in_an_error(
    tmp_path: Path, pieces: list[str]
) -> None:
    body = "".join(pieces)
    folder = write_pack(tmp_path, boats=BOATS.replace("It leaks.", f"It leaks.\n{body}"))
    try:
        text = load_pack(folder).spec(["boats"]).text
    except PackError as error:
        assert all(re.match(r".*boats\.md:\d+: .*; ", line) for line in str(error).split("\n"))
        return
    words = re.findall(r"\w+", body.replace("# Style", "").replace("->", ""))
    assert Counter(words) - Counter(re.findall(r"\w+", text)) == Counter()


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(front=st.text(st.sampled_from("ab:?- []{}\"'|>#&*!%@`\n\t\\\u2028,"), max_size=40))
def test_any_front_matter_gives_a_pack_or_faults(tmp_path: Path, front: str) -> None:
    folder = write_pack(tmp_path, boats=BOATS.replace("title: Boats\n", f"title: Boats\n{front}\n"))
    try:
        spec = load_pack(folder).spec([], detail="summary")
    except PackError:
        return
    assert spec.text.count("\n- ") == 2 + 3


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
        assert all(f"[{rule.id}, {rule.effect}" in spec.text for rule in policy.rules)
        assert pack.rule(policy.rules[0].id) is policy.rules[0]
        assert {rule.effect for rule in policy.rules} <= {*Outcome, GUIDE}
