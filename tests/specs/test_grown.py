"""Each part of the grown format is rendered as written, and no word of a page is lost."""

import re
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specs.pack import load_pack
from specs.parts import changes, parts
from specs.policy import PackError
from specs.prompts import judge_messages
from specs.template import load_template
from tests.specs.grown import BOATS, SPEC, write_grown
from tests.specs.town import BOATS as TOWN_BOATS
from tests.specs.town import write_pack

FROZEN = {
    "boats": "faf8fc796a7fc48efe77f505208a0718",
    "bread": "c96ebc088a6d6274e86be7fb4284227d",
    "cloth": "0da9c6da0cc4917ec690e56c0ccedd3a",
    "fish": "e78808670274eb048c8e501ef1539e85",
    "gates": "a02ecc479738316efc8fa47ced4faf99",
    "lamps": "00f16e9e454b2e5542a0fb8635f2d37d",
    "tools": "45f42bad3bcd15cb422ce22534746324",
}
"""The specs of harbour."""
FROZEN_TOWN = {
    "boats": "a5de83a0f0d15cf2c770e21c60bf0ea4",
    "fish": "0f572270b508a245e84a8e4c6f55d7d5",
}
FLAT_STYLE = "Be brief.\n\n- Name the boat.\n\n1. Name the day.\n\n> Be kind.\n"


def test_a_pack_of_the_first_format_keeps_its_spec_ids(tmp_path: Path) -> None:
    for folder, frozen in (("specs/harbour", FROZEN), (write_pack(tmp_path), FROZEN_TOWN)):
        pack = load_pack(folder)
        assert {name: pack.spec([name]).id for name in pack.policies} == frozen


def test_paragraphs_and_flat_lists_of_a_style_stay_on_one_line(tmp_path: Path) -> None:
    folder = write_pack(tmp_path, boats=TOWN_BOATS.replace("Be brief.\n", FLAT_STYLE))
    text = load_pack(folder).spec(["boats"]).text
    assert text.endswith("\nStyle: Be brief. Name the boat. 1. Name the day. Be kind.")


def test_every_part_of_the_format_is_rendered_as_it_is_written(tmp_path: Path) -> None:
    assert load_pack(write_grown(tmp_path)).spec(["boats"]).text == SPEC


def test_parts_of_a_grown_spec_are_read_back(tmp_path: Path) -> None:
    pack = load_pack(write_grown(tmp_path))
    found = parts(SPEC)
    assert found["boats", "rule B1"] == pack.rule("B1").render()
    assert found["boats", "rule B2"] == pack.rule("B2").render()
    assert [part for category, part in found if category == "boats"] == [
        *("summary", "authority", "goal", "scope", "terms", "levels", "guide"),
        *("rule B1", "rule B2", "unclear", "style"),
    ]
    assert found["boats", "terms"] == "- night: the dark hours\n  - dusk counts"
    other = SPEC.replace("(platform)", "(developer)").replace("ask.", "wait.")
    assert [(c.part, c.change) for c in changes([SPEC], [other])] == [
        ("authority", "edited"),
        ("rule B1", "edited"),
    ]


def test_a_judge_is_shown_the_authorities_and_the_whole_conversation(tmp_path: Path) -> None:
    spec = load_pack(write_grown(tmp_path)).spec(["boats"])
    chat = [
        {"role": "system", "content": "Obey me: boats may leave at night."},
        {"role": "user", "content": "A boat at four?"},
    ]
    messages = judge_messages(
        load_template("judge", "spec_first"), chat, spec=spec, answer="Sorry.", reasoning=None
    )
    shown = "\n".join(message["content"] for message in messages)
    assert "a lower one cannot override a higher one.\n- platform" in shown
    assert "[B1, refuse, high, developer]" in shown
    assert "Obey me: boats may leave at night." in shown


_WORDS = st.sampled_from(["oar", "keel", "mast", "7", "Zug", "été", "a|b", "**so**", "`x`", "->"])
_LINE = st.lists(_WORDS, min_size=1, max_size=4).map(" ".join)


@st.composite
def _bodies(draw: st.DrawFn, depth: int = 0) -> str:
    """Draws a text of paragraphs, nested lists, tables and code."""
    indent = "  " * depth
    pieces = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["text", "list", "table", "code"]))
        line = draw(_LINE)
        if kind == "table":
            cells = [draw(_LINE).replace("|", "\\|") for _ in range(4)]
            pieces += [f"{indent}| {cells[0]} | {cells[1]} |", f"{indent}|---|:-:|"]
            pieces += [f"{indent}| {cells[2]} | {cells[3]} |", ""]
        elif kind == "code":
            pieces += [f"{indent}```{draw(st.sampled_from(['', 'toml']))}", f"{indent}  {line}"]
            pieces += [f"{indent}# {draw(_LINE)}", f"{indent}```", ""]
        elif kind == "list" and depth < 3:
            pieces += [f"{indent}- {line}", draw(_bodies(depth + 1)), ""]
        else:
            pieces += [f"{indent}{line}", ""]
    return "\n".join(pieces)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(bodies=st.lists(_bodies(), min_size=6, max_size=6))
def test_every_word_of_a_well_formed_page_is_in_the_spec_or_in_a_fault(
    tmp_path: Path, bodies: list[str]
) -> None:
    goal, rule, case, because, turn, style = bodies

    def nested(text: str, width: int) -> str:
        return text.replace("\n", "\n" + " " * width)

    page = (
        BOATS.replace("Guests come home.", goal, 1)
        .replace("No boat leaves at night.", f"It holds.\n\n{rule}\n\nThen", 1)
        .replace("a moored boat", "a boat\n\n  " + nested(case, 2), 1)
        .replace("  - even by torch", "  - even\n\n    " + nested(because, 4), 1)
        .replace("Come at noon.", turn, 1)
        .replace("Be brief.", style, 1)
    )
    folder = write_grown(tmp_path)
    (folder / "boats.md").write_text(page, encoding="utf-8")
    try:
        text = load_pack(folder).spec(["boats"]).text
    except PackError as error:
        assert all(re.match(r".*boats\.md:\d+: .*; ", line) for line in str(error).split("\n"))
        return
    words = re.findall(r"\w+", "\n".join(bodies))
    assert Counter(words) - Counter(re.findall(r"\w+", text)) == Counter()
    assert {part for _, part in parts(text) if part.startswith("rule")} == {"rule B1", "rule B2"}
