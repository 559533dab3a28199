"""An answer and its gold answer → right or wrong, for numbers and short texts.

Numbers are compared by value, whatever their typesetting; everything else word for word.
"""

import re
from decimal import Decimal

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_NUMBER = (
    r"(?<![0-9A-Za-z_.])(?P<minus>(?<![)\]}%])[-−])?[$€£¥]?(?P<inner>[-−])?"
    rf"(?P<digits>{_DIGITS})(?:/(?P<over>[0-9]+))?"
)
_ANY_NUMBER = re.compile(_NUMBER)
_WHOLE_NUMBER = re.compile(rf"{_NUMBER}(?: ?%)?\.?")
_HASHED = re.compile(
    rf"^[ \t]*#### *\**(?P<value>{_NUMBER})\**(?: ?%| [A-Za-z]+)?\.?\**[ \t]*$", re.M
)
_SPACED = re.compile(r"(?<=[0-9])(?:\{,\}|,?\\[,!]|[\u00a0\u2009\u202f])(?=[0-9]{3})")
_FRACTION = re.compile(r"\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\}")


def exact_match(answer: str, target: str) -> float:
    r"""1 where an answer ends on the gold answer, else 0.

    The answer's number is that of its last line `#### 18`, else that in its last `\boxed{18}`, else
    the last one of all: "so 1,200 in the first year and $1,250.00." → 1250. The target's stands
    behind `####`, or is the target. A target that is no number is compared as text, apart from
    case, space and punctuation at the ends.
    """
    gold = _plain(target.rpartition("####")[2].strip())
    wanted = _WHOLE_NUMBER.fullmatch(gold)
    boxed = _last_box(answer)
    if not wanted:
        return float(_words(gold) in {_words(answer), *([_words(boxed)] if boxed else [])})
    text = _plain(answer)
    hashed = list(_HASHED.finditer(text))
    place = hashed[-1]["value"] if hashed else _plain(boxed) if boxed else text
    found = list(_ANY_NUMBER.finditer(place)) or list(_ANY_NUMBER.finditer(text))
    given = _value(found[-1]) if found else None
    return float(given is not None and given == _value(wanted))


def _plain(text: str) -> str:
    r"""Undoes the typesetting of numbers: "1{,}000" → "1000", "\frac{1}{2}" → "1/2"."""
    text = _FRACTION.sub(r"\1/\2", _SPACED.sub("", text))
    return text.replace(r"\$", "$").replace(r"\%", "%")


def _value(match: re.Match[str]) -> Decimal | None:
    """Returns the number of a match of `_NUMBER`, or None for a division by zero."""
    value = Decimal(match["digits"].replace(",", ""))
    if match["over"]:
        over = Decimal(match["over"])
        if not over:
            return None
        value /= over
    return value.copy_negate() if match["minus"] or match["inner"] else value


def _last_box(text: str) -> str | None:
    r"""Returns the text between the braces of the last `\boxed{…}`, or None."""
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    inside = text[start + len(r"\boxed{") :]
    depth = 1
    for index, character in enumerate(inside):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return inside[:index]
    return inside


def _words(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .!?,;:'\"*#`$")
