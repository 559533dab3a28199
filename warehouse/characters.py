"""Characters that a terminal, a page or a reader obeys instead of showing them, made visible.

Controls can move the cursor, write the clipboard and end an XML document; bidirectional controls
and tags show a text other than the one that is stored. A text is shown with such a character
written as its number, `\\x1b` or `\\u202e`; newlines and tabs stay.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and newline, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # bidirectional and deprecated format controls
    "\u2028\u2029"  # line and paragraph separators
    "\ufff9-\ufffb\ufffe\uffff"  # annotations, and what XML cannot hold
    "\ud800-\udfff"  # halves of surrogate pairs, which UTF-8 cannot hold
    "\U000e0000-\U000e007f]"  # tags, which spell a text that nobody sees
)


def visible(text: str) -> str:
    """Returns a text in which every character is shown and none is obeyed; lines stay lines."""
    return _OBEYED.sub(lambda match: _number(match[0]), text)


def one_line(text: str) -> str:
    """Returns a text as one visible line, with newlines written as `\\n` and tabs as `\\t`."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def all_visible(value: Any, show: Callable[[str], str] = visible) -> Any:
    """Returns a value of JSON with every text in it made visible, keys included."""
    if isinstance(value, str):
        return show(value)
    if isinstance(value, Mapping):
        return {all_visible(key, show): all_visible(one, show) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [all_visible(one, show) for one in value]
    return value


def json_text(value: Any, **options: Any) -> str:
    """Returns a value as JSON that can be shown: the same value, with such characters escaped.

    What JSON does not know, such as a time, becomes its text. `options` are those of `json.dumps`.
    """
    text = json.dumps(value, default=str, ensure_ascii=False, **options)
    return _OBEYED.sub(lambda match: json.dumps(match[0])[1:-1], text)


def _number(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
