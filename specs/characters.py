"""Characters that show nothing, and characters that look like others.

Readers go by what a person sees of a text: what shows nothing is not read, and a full-width letter
is the letter.
"""

import unicodedata

_SHOWN_FORMATS = frozenset(
    "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
)
"""Characters of category Cf that are seen: signs that stand around or above numbers."""
_IGNORABLE = frozenset(
    "\u034f"  # combining grapheme joiner
    "\u115f\u1160\u3164\uffa0"  # Hangul fillers
    "\u17b4\u17b5"  # Khmer vowels that are never shown
    "\u180b\u180c\u180d\u180f"  # Mongolian variation selectors
    "\u2065"  # reserved for a mark that shows nothing
)
_BRAILLE_BLANK = "\u2800"


def is_hidden(character: str) -> bool:
    """Returns True if a character takes no room: zero-width and bidirectional marks, variation
    selectors, fillers, control characters."""
    code = ord(character)
    return (
        (unicodedata.category(character) == "Cf" and character not in _SHOWN_FORMATS)
        or (unicodedata.category(character) == "Cc" and not character.isspace())
        or character in _IGNORABLE
        or 0xFE00 <= code <= 0xFE0F  # variation selectors
        or 0xFFF0 <= code <= 0xFFF8
        or 0xE0000 <= code <= 0xE0FFF  # tags and more variation selectors
    )


def is_blank(text: str) -> bool:
    """Returns True if nothing of a text is seen, because it is white space or hidden."""
    return all(
        character.isspace() or character == _BRAILLE_BLANK or is_hidden(character)
        for character in text
    )


def fold(text: str) -> str:
    """Returns the text that a person reads: without hidden characters, in Unicode's form NFKC.

    "Ｓｃｏｒｅ：\u200b９" → "Score:9"

    Digits of other scripts and numbers that are raised, circled or broken stay as they are: of
    these, NFKC would read "1⁰" as 10.
    """
    return text if text.isascii() and text.isprintable() else text.translate(_FOLDED)


class _Folded(dict[int, str]):
    """By its code, the text that a character is folded into; worked out when it is first met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        is_other_number = character.isnumeric() and not "０" <= character <= "９"
        if is_hidden(character):
            folded = ""
        elif character == _BRAILLE_BLANK:
            folded = " "
        elif is_other_number:
            folded = character
        else:
            folded = unicodedata.normalize("NFKC", character)
        self[code] = folded
        return folded


_FOLDED = _Folded()
