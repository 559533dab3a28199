"""Chats as files spell them → messages: roles and contents of every common layout.

A chat is a list of turns with role and content, or with from and value, or the same as JSON text.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from specs.calls import Call, call_id, calls_text, map_strings
from specs.prompts import ROLES, Message
from tasks.data.json_documents import RepeatedKeyError, decode, written_list

_ROLE_KEYS = ("role", "from")
_CONTENT_KEYS = ("content", "value")
_CALL_KEYS = ("tool_calls", "function_call")
"""Keys of an assistant's turn that calls tools."""
_CALL_ROLES = ("function_call", "tool_call")
"""Roles of an assistant's turn whose content is its calls."""
_LONGEST_NAME = 200
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
        value = _decoded_chat(value)
    if is_missing(value) or not value or (isinstance(value, str) and not value.strip()):
        raise BadRowError("empty_prompt")
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        raise BadRowError("not_a_chat")
    return value


def _decoded_chat(text: str) -> object:
    """Returns a chat that is written as JSON, or as Python writes a list."""
    try:
        return decode(text)
    except RepeatedKeyError:
        raise BadRowError("key_stands_twice") from None
    except (ValueError, RecursionError):
        if (turns := written_list(text)) is None:
            raise BadRowError("not_a_chat") from None
        return turns


def read_role(turn: Turn, role_map: Mapping[str, str]) -> str:
    """Returns the role of a turn; `role_map` has its keys case-folded.

    Raises BadRowError if there is none, or if it is unknown, which it then names.
    """
    given = _first(turn, _ROLE_KEYS)
    if given is None:
        raise BadRowError("no_role")
    role = str(given).strip().casefold()
    mapped = role_map.get(role) or ROLES.get(role) or _role_of_calls(role)
    if mapped is None:
        name = str(given) if str(given).isprintable() else repr(given)
        short = name if len(name) <= _LONGEST_ROLE else name[: _LONGEST_ROLE - 1] + "…"
        raise BadRowError(f"unknown_role: {short}")
    return mapped


def read_content(turn: Turn) -> object:
    """Returns the content of a turn as the file has it."""
    return _first(turn, _CONTENT_KEYS)


def has_calls(turn: Turn) -> bool:
    """Returns True for a turn that calls tools."""
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
    """Returns turns as messages; raises BadRowError if one of them cannot be read.

    Calls of tools are numbered, and each result is that of the call whose id it has, else of the
    first that has none. A result without a call, or a call without any result, is a fault.
    """
    tools = _Tools()
    messages = []
    for turn in turns:
        role = read_role(turn, role_map)
        if role == "tool":
            messages.append(tools.result(turn))
            continue
        if role != "assistant" and has_calls(turn):
            raise BadRowError("call_of_other_role")
        tools.require_result()
        tools.answering = role == "assistant"
        message: Message = {"role": role, "content": ""}
        calls = tools.number(_raw_calls(turn)) if role == "assistant" else []
        if calls:
            message["tool_calls"] = calls_text(calls)
        content = None if _is_all_calls(turn) else read_content(turn)
        if not (calls and is_missing(content)):
            message["content"] = read_text(content)
        messages.append(message)
    return messages


@dataclass(slots=True)
class _Tools:
    """The calls of a chat so far, and those of the last turn that wait for their results."""

    num_calls: int = 0
    waiting: list[tuple[object, Call]] = field(default_factory=list)
    """Each with the id that the file gives it."""
    has_result: bool = True
    """The calls of the last turn have one, or there are none."""
    answering: bool = False
    """The last turn that is no tool's is the assistant's, whose text may tell of calls."""

    def number(self, raw: Sequence[Mapping[str, Any]]) -> list[Call]:
        """Returns the calls of a turn with their ids in the chat."""
        calls = []
        for one in raw:
            self.num_calls += 1
            calls.append(_call(one, call_id(self.num_calls)))
        self.waiting = list(zip((one.get("id") for one in raw), calls, strict=True))
        self.has_result = not calls
        return calls

    def require_result(self) -> None:
        """Raises BadRowError if the calls of the last turn have no result."""
        if not self.has_result:
            raise BadRowError("call_without_result")

    def result(self, turn: Turn) -> Message:
        """Returns the turn of a tool; raises BadRowError if it is no result of a call."""
        message: Message = {"role": "tool", "content": _result_text(read_content(turn))}
        given, name = turn.get("tool_call_id"), turn.get("name")
        if self.num_calls and (self.waiting or not self.has_result):
            call = self._take(given, name)
            message["tool_call_id"] = call.id
            self.has_result = True
        elif not self.answering or given is not None or self.num_calls:
            raise BadRowError("result_without_call")
        elif isinstance(name, str) and name:
            message["name"] = clean(name)
        return message

    def _take(self, given: object, name: object) -> Call:
        """Returns the call that a result belongs to, which waits for no other."""
        for place, (known, call) in enumerate(self.waiting):
            if (given is None or known is None or given == known) and name in (None, "", call.name):
                del self.waiting[place]
                return call
        raise BadRowError("result_without_call")


def _role_of_calls(role: str) -> str | None:
    return "assistant" if role in _CALL_ROLES else None


def _is_all_calls(turn: Turn) -> bool:
    """Returns True if the content of a turn is its calls."""
    return str(_first(turn, _ROLE_KEYS)).strip().casefold() in _CALL_ROLES


def _raw_calls(turn: Turn) -> list[Mapping[str, Any]]:
    """Returns the calls of a turn as the file has them; raises BadRowError if they are none."""
    raw = read_content(turn) if _is_all_calls(turn) else None
    raw = raw or next((turn[key] for key in _CALL_KEYS if turn.get(key)), None)
    if raw is None or raw == []:
        return []
    raw = _decoded(raw)
    calls = raw if isinstance(raw, list) else [raw]
    if not all(isinstance(call, Mapping) for call in calls):
        raise BadRowError("unreadable_call")
    return calls


def _call(raw: Mapping[str, Any], name: str) -> Call:
    """Returns a call under the id that it has in its chat."""
    function = raw.get("function") if isinstance(raw.get("function"), Mapping) else raw
    assert isinstance(function, Mapping)
    tool, arguments = function.get("name"), function.get("arguments", function.get("parameters"))
    arguments = _decoded(arguments) if arguments not in (None, "") else {}
    if not isinstance(tool, str) or not 0 < len(tool) <= _LONGEST_NAME:
        raise BadRowError("unreadable_call")
    if not isinstance(arguments, Mapping):
        raise BadRowError("unreadable_call")
    return Call(name, clean(tool), map_strings(arguments, clean))


def _decoded(value: object) -> Any:
    """Returns the value of JSON text, and anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return decode(value)
    except ValueError:
        raise BadRowError("unreadable_call") from None


def _result_text(content: object) -> str:
    """Returns what a tool returned as text: any other value than text or its parts as JSON."""
    is_parts = isinstance(content, list) and all(
        isinstance(part, Mapping) and "type" in part for part in content
    )
    if isinstance(content, str) or is_missing(content) or (content and is_parts):
        return read_text(content)
    return clean(json.dumps(content, ensure_ascii=False, default=str))


def _first(turn: Turn, keys: Sequence[str]) -> object:
    return next((turn[key] for key in keys if turn.get(key) is not None), None)
