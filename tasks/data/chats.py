"""Chats as files spell them → messages: roles and contents of every common layout.

A chat is a list of turns with role and content, or with from and value, or the same as JSON text.
"""

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from specs.prompts import ROLES, Message
from tasks.data.json_documents import RepeatedKeyError, decode

_ROLE_KEYS = ("role", "from")
_CONTENT_KEYS = ("content", "value")
_CALL_KEYS = ("tool_calls", "function_call")
"""Keys of calls that are no text, and would be lost."""
_TEXT_PARTS = (None, "text", "input_text", "output_text")
"""Types of the parts of a content that are text."""
_LONGEST_ROLE = 40
_UNSAFE = re.compile("[\ud800-\udfff\x00]")

Turn = Mapping[str, Any]


class BadRowError(ValueError):
    """A row that cannot be used; its message is the fault by which it is counted."""


def is_missing(value: object) -> bool:
    """Returns True for a value that a file does not have: null, or not a number."""
    return value is None or (isinstance(value, float | Decimal) and math.isnan(value))


def clean(text: str) -> str:
    """Returns text that every file and tokenizer takes: lone surrogates and NUL become U+FFFD."""
    return _UNSAFE.sub("\ufffd", text).replace("\r\n", "\n")


def is_chat(value: object) -> bool:
    """Returns True for a list of turns: each has a role, and some have a content."""
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        return False
    has_roles = all(any(key in turn for key in _ROLE_KEYS) for turn in value)
    return has_roles and any(key in turn for turn in value for key in _CONTENT_KEYS)


def read_turns(value: object) -> list[Turn]:
    """Returns the turns of a chat, which may be JSON text; raises BadRowError if it is none."""
    if isinstance(value, str) and value.strip():
        try:
            value = decode(value)
        except RepeatedKeyError:
            raise BadRowError("key_stands_twice") from None
        except (ValueError, RecursionError):
            raise BadRowError("not_a_chat") from None
    if is_missing(value) or not value or (isinstance(value, str) and not value.strip()):
        raise BadRowError("empty_prompt")
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        raise BadRowError("not_a_chat")
    return value


def read_role(turn: Turn, role_map: Mapping[str, str]) -> str:
    """Returns the role of a turn; `role_map` has its keys case-folded.

    Raises BadRowError, which names the role, if it is unknown.
    """
    given = _first(turn, _ROLE_KEYS)
    role = str(given).strip().casefold()
    mapped = role_map.get(role) or ROLES.get(role)
    if mapped is None:
        name = str(given) if str(given).isprintable() else repr(given)
        short = name if len(name) <= _LONGEST_ROLE else name[: _LONGEST_ROLE - 1] + "…"
        raise BadRowError(f"unknown_role: {short}")
    return mapped


def read_content(turn: Turn) -> object:
    """Returns the content of a turn as the file has it."""
    return _first(turn, _CONTENT_KEYS)


def has_calls(turn: Turn) -> bool:
    """Returns True for a turn that calls tools, which no text of a prompt can show."""
    return any(turn.get(key) for key in _CALL_KEYS)


def read_text(content: object) -> str:
    """Returns a content as text, the text parts of a list joined by line breaks.

    Raises BadRowError if there is none, or if it is anything else.
    """
    if is_missing(content) or content == []:
        raise BadRowError("empty_prompt")
    if isinstance(content, list):
        content = "\n".join(map(_part_text, content))
    if not isinstance(content, str):
        raise BadRowError("not_text")
    return clean(content)


def _part_text(part: object) -> str:
    if isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS:
        text = part.get("text")
        if isinstance(text, str):
            return text
    raise BadRowError("not_text")


def read_messages(turns: Sequence[Turn], role_map: Mapping[str, str]) -> list[Message]:
    """Returns turns as messages; raises BadRowError if one of them cannot be read."""
    return [_message(turn, role_map) for turn in turns]


def _message(turn: Turn, role_map: Mapping[str, str]) -> Message:
    role = read_role(turn, role_map)
    if has_calls(turn):
        raise BadRowError("tool_calls")
    return {"role": role, "content": read_text(read_content(turn))}


def _first(turn: Turn, keys: Sequence[str]) -> object:
    return next((turn[key] for key in keys if turn.get(key) is not None), None)
