"""Calls of tools in a chat: in a message, in words for a reader, and as a chat template takes them.

A message holds its calls as JSON text, so that it has one form in files, tables and hashes. Calls
are numbered over their chat, whatever ids a file gave them, and a result names its call.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

_ID = "call{:05}"
"""Some chat templates want nine letters and digits."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool."""

    id: str
    name: str
    arguments: Mapping[str, Any]

    def __str__(self) -> str:
        """Returns the call in words: `get_tides({"day": "Monday"})`."""
        return f"{self.name}({json.dumps(self.arguments, ensure_ascii=False)})"


def call_id(number: int) -> str:
    """Returns the id of a call by its number in the chat, from 1."""
    return _ID.format(number)


def call_number(name: str) -> int:
    """Returns the number of a call, by its id."""
    return int(name.removeprefix("call"))


def calls_text(calls: Sequence[Call]) -> str:
    """Returns calls as a message holds them: the same however a file spells them."""
    rows = [asdict(call) for call in calls]
    return json.dumps(rows, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def calls_of(turn: Mapping[str, Any]) -> list[Call]:
    """Returns the calls of a message, which may be none."""
    return [Call(**call) for call in json.loads(turn.get("tool_calls") or "[]")]


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """Returns a value of JSON with every string in it changed, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(str(key)): map_strings(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [map_strings(item, change) for item in value]
    return value


def calls_with(calls: Sequence[Call], change: Callable[[str], str]) -> list[Call]:
    """Returns calls with the text of their names and arguments changed."""
    return [Call(c.id, change(c.name), map_strings(c.arguments, change)) for c in calls]


def tool_names(turns: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Returns the name of the tool by the id of each call of a chat."""
    return {call.id: call.name for turn in turns for call in calls_of(turn)}


def strings_of(value: Any) -> list[str]:
    """Returns every string, number and truth in a value of JSON, as text; without keys."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return [text for item in value for text in strings_of(item)]
    if value is None or isinstance(value, bool):
        return []
    return [str(value)]
