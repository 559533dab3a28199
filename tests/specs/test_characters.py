"""Texts are read as a person sees them."""

import sys
import unicodedata

import pytest

from specs.characters import fold, is_blank

SPACES = ["", " \n\t", "\u00a0\u3000\u2003", "\x00\x07"]
MARKS = ["\u200b\ufeff", "\u2060\u00ad", "\u034f\u180e", "\ufe0f", "\u202e\u2069", "\U000e0020"]
FILLERS = ["\u3164", "\uffa0\u115f", "\u2800 \u2800"]


@pytest.mark.parametrize("text", [*SPACES, *MARKS, *FILLERS])
def test_text_that_shows_nothing_is_blank(text: str) -> None:
    assert is_blank(text)
    assert not is_blank(f"{text}.{text}")


@pytest.mark.parametrize("text", ["0", "—", "👍", "é", "e\u0301", "\u0301", "漢", "\u06dd"])
def test_text_that_shows_anything_is_not_blank(text: str) -> None:
    assert not is_blank(text)


def test_every_separator_and_format_that_is_not_seen_is_blank() -> None:
    unseen = [
        character
        for character in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cf") and not is_blank(character)
    ]
    # Signs of Arabic, Syriac and Kaithi that stand around or above numbers and names.
    assert len(unseen) == 13
    words = {word for character in unseen for word in unicodedata.name(character).split()}
    assert words >= {"ARABIC", "SYRIAC", "KAITHI", "SIGN", "MARK"}


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Ｓｃｏｒｅ：\u200b９", "Score:9"),
        ("Score:\u00a09\ufe0f", "Score: 9"),
        ("plain", "plain"),
        # Numbers that are raised, broken, circled or of another script stay what they are.
        ("1⁰ ½ ⑧ ٥ 𝟖 Ⅷ", "1⁰ ½ ⑧ ٥ 𝟖 Ⅷ"),
    ],
)
def test_folded_text_is_what_a_person_reads(text: str, folded: str) -> None:
    assert fold(text) == folded
