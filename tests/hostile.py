"""Texts that a terminal, a page or a log might obey, and what it looks like if one does."""

import random
import re
import unicodedata

CONTROLS = [
    *map(chr, (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0))),
    *"\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
    *"\ufff9\ufffe\uffff\U000e0041",
]
MARKUP = [
    "[/red]", "[bold]x", "[link=https://example.org]x[/link]", ":smile:", "[v2]", "\\[", "|",
    "\x1b]52;c;ZWNobw==\x1b\\", "\x1b[2J", "\x9b31m", "\x1b]0;title\x07", "\r", "%s", "{x}", "$x$",
    "<script>alert(1)</script>", "</pre></details>", "]]>", "<!--", "&lt;", "# x", "`", "*x*",
    "_x", "~~x~~", "http://example.org", "name: x", "漢字", "e\u0301", "'", '"', " ", "x" * 90,
]  # fmt: skip
OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def hostile_texts(count: int, *, lines: bool = True, surrogates: bool = False) -> list[str]:
    """Texts in which every control and every piece of markup stands, the same each time."""
    pieces = [*CONTROLS, *MARKUP, *(["\n", "\n\n# b", "\t"] if lines else [])]
    pieces += ["\ud800", "\udc1b"] if surrogates else []
    draw = random.Random(count)
    texts = [f"a{piece}b" for piece in pieces]
    texts += ["".join(draw.choices(pieces, k=draw.randint(1, 6))) for _ in range(count)]
    return texts[:count]


def is_plain(text: str) -> bool:
    """True if every character is shown, as a terminal would write it."""
    return not OBEYED.search(text) and not any(
        unicodedata.bidirectional(sign) in ("LRE", "RLE", "LRO", "RLO", "PDF") for sign in text
    )
