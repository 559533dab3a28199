"""Characters that are obeyed are shown by their numbers; all others stay what they are."""

import json

from tests.hostile import hostile_texts, is_plain
from warehouse.characters import all_visible, json_text, one_line, visible


def test_controls_are_written_as_their_numbers() -> None:
    assert visible("a\x1b[31mb\x07\x9b\u202e\ud800\U000e0041") == (
        "a\\x1b[31mb\\x07\\x9b\\u202e\\ud800\\U000e0041"
    )
    assert visible("crlf\r\n") == "crlf\\x0d\n"


def test_scripts_emoji_lines_and_tabs_stay() -> None:
    for text in ("ä 漢字 שלום مرحبا हिन्दी", "👩‍👩‍👧 e\u0301 \u200d", "a\n\tb", "[red]\\x1b"):
        assert visible(text) == text


def test_one_line_has_no_line_break_and_every_text_is_plain() -> None:
    for text in hostile_texts(300, surrogates=True):
        assert is_plain(visible(text)) and visible(visible(text)) == visible(text)
        assert len(one_line(text).splitlines()) <= 1 and "\t" not in one_line(text)


def test_json_holds_the_same_value_in_plain_characters() -> None:
    value = {text: [text, {"deep": text}] for text in hostile_texts(300, surrogates=True)}
    written = json_text(value)
    assert is_plain(written) and json.loads(written) == value
    assert is_plain(json.dumps(all_visible(value), ensure_ascii=False).replace("\\n", ""))
