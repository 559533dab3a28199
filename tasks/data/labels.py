"""Values of columns → text: a table has the same labels whatever kind of file it is saved as.

CSV has text alone, and pandas makes whole numbers with a gap into fractions. So a whole fraction is
an integer, not-a-number is no value, and truth is `true` or `false`.
"""

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tasks.data.chats import clean, is_missing
from tasks.data.json_documents import written_list

_EXACT = 10**16
"""Whole fractions from here on are written with an exponent."""
_WHOLE = re.compile(r"-?[0-9]{1,16}\.0+")
_TRUTH = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
_NOT_A_NUMBER = ("nan", "NaN")


def value_text(value: Any) -> str | None:
    """Returns a value as JSON spells it, and text as it is; None if there is no value."""
    if is_missing(value):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float | Decimal) and -_EXACT < value < _EXACT and value == int(value):
        return str(int(value))
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list | Mapping):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def texts_of(value: object) -> list[str]:
    """Returns the values of a column as text: none, one, or those of a list."""
    values = value if isinstance(value, list) else [value]
    texts = (text for item in values if (text := value_text(item)) is not None)
    return [text for text in (clean(text).strip() for text in texts) if text]


class LabelMap:
    """Meanings of a column's labels; `1`, `1.0` and 1 are one label, as are `True` and true."""

    def __init__(self, meanings: Mapping[str, str]) -> None:
        self._exact = meanings
        self._canonical = {_canonical(label): meaning for label, meaning in meanings.items()}

    def meanings(self, value: object) -> list[str]:
        """Returns the meanings of the labels in a value; a label without one is its own.

        A list may be written as text, unless that text is a label itself.
        """
        if isinstance(value, str) and value.strip() not in self._exact:
            labels = written_list(value)
            value = value if labels is None else labels
        return [
            self._meaning(label)
            for label in texts_of(value)
            if label in self._exact or label not in _NOT_A_NUMBER
        ]

    def _meaning(self, label: str) -> str:
        if label in self._exact:
            return self._exact[label]
        canonical = _canonical(label)
        return self._canonical.get(canonical, canonical)


def _canonical(label: str) -> str:
    """Returns the text of a label as `value_text` would give it, had the file kept its type."""
    if _WHOLE.fullmatch(label):
        return str(int(label.partition(".")[0]))
    return _TRUTH.get(label, label)
