"""Names of columns → values: a name may lead into nested ones, as `instances.0.input` does."""

from collections.abc import Mapping
from typing import Any

_ABSENT = object()


def column_value(values: Mapping[str, Any], name: str | None) -> Any:
    """Returns the value of a column; None if the row does not have it, or if no name is given."""
    value = _ABSENT if name is None else _look_up(values, name)
    return None if value is _ABSENT else value


def has_column(values: Mapping[str, Any], name: str) -> bool:
    """Returns True if a row has a column, whatever its value."""
    return _look_up(values, name) is not _ABSENT


def top_column(name: str) -> str:
    """Returns the column that a nested name leads into."""
    return name.partition(".")[0]


def _look_up(values: Mapping[str, Any], name: str) -> Any:
    # A name that stands in the file as it is comes first: it may have dots of its own.
    if name in values:
        return values[name]
    value: Any = values
    for part in name.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return _ABSENT
    return value
