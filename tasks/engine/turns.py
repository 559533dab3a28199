"""Turns of a chat, in the form that a model's chat template can write.

Some templates have no system role, or want users and assistants to take turns. They are asked once,
with stand-ins. Where a template cannot take a system turn, its text is put before the first user
turn, and where it refuses turns of one role in a row, they are joined; a blank line stands between.
A template that can take them is given the turns as they are.

The same holds for tools: a template that knows no calls is given them as lines of the assistant's
text, and one that knows no turns of tools, their results as turns of the user.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from specs.calls import Call, call_number, calls_of, calls_text, strings_of, tool_names
from specs.prompts import Message
from specs.replies import CLOSE_TAG, OPEN_TAG

_SYSTEM, _FIRST, _ANSWER, _SECOND = "standinsystem", "standinfirst", "standinanswer", "standinlast"
"""Stand-ins, in letters that no template changes."""
_CALL = Call("call00001", "standintool", {"standinkey": "standinvalue"})
_RESULT = "standinresult"

THINK_FIRST = (
    f"Before you answer, think step by step between {OPEN_TAG} and {CLOSE_TAG}: begin your reply "
    f"with {OPEN_TAG}, close your reasoning with {CLOSE_TAG}, and write your answer after it."
)
"""Asks a model that has no reasoning of its own for it."""

Written = Mapping[str, Any]
"""A turn as chat templates take it."""
Render = Callable[[Sequence[Written]], str]
"""Writes turns by a chat template; may raise anything."""


class TurnsError(ValueError):
    """Turns that a chat template cannot write."""


@dataclass(frozen=True, slots=True)
class TurnRules:
    """The turns that a chat template can write."""

    takes_system: bool = True
    """True if it writes a system turn before the first user turn."""
    takes_repeats: bool = True
    """True if it writes two turns of one role in a row."""
    arguments: Literal["object", "text"] | None = "object"
    """The form of the arguments of calls that it writes; None if it writes no calls."""
    takes_results: bool = True
    """True if it writes turns of tools."""

    @classmethod
    def of(cls, render: Render) -> "TurnRules":
        """Returns the rules of a template; raises TurnsError if it cannot write a chat at all."""
        first, second = _message("user", _FIRST), _message("user", _SECOND)
        answer, system = _message("assistant", _ANSWER), _message("system", _SYSTEM)
        for turns in ([first], [first, answer, second]):
            if fault := _fault(render, turns):
                raise TurnsError(
                    f"chat template cannot write the turns {_roles(turns)}: {fault}; set "
                    "chat_template_kwargs that let it, or give the model another chat template"
                )
        # With an answer between: some templates write the system turn of a first question alone.
        chats = ([system, first], [system, first, answer, second])
        return cls(
            takes_system=not any(_fault(render, turns) for turns in chats),
            takes_repeats=not _fault(render, [first, second]),
            **_tool_rules(render, first, answer, second),
        )

    def apply(self, turns: Sequence[Message]) -> list[dict[str, Any]]:
        """Returns the turns as the template can write them."""
        names = tool_names(turns)
        applied = [self._written(turn, names) for turn in turns]
        if not self.takes_system and any(turn["role"] == "system" for turn in applied):
            applied = _without_system(applied)
        return applied if self.takes_repeats else _joined(applied)

    def _written(self, turn: Message, names: Mapping[str, str]) -> dict[str, Any]:
        """Returns a turn with its calls and its result in the form that the template takes.

        `names` are those of tools by the ids of their calls.
        """
        role, content, calls = turn["role"], turn["content"], calls_of(turn)
        if calls and self.arguments:
            return _turn(role, content) | {"tool_calls": [self._call(call) for call in calls]}
        if calls:
            lines = [f"Call {call_number(call.id)}: {call}" for call in calls]
            return _turn(role, "\n".join([content, *lines] if content.strip() else lines))
        if role != "tool":
            return _turn(role, content)
        call_id = turn.get("tool_call_id")
        name = names.get(call_id or "", turn.get("name"))
        if not self.takes_results:
            call = f" of call {call_number(call_id)}" if call_id else ""
            by = f" ({name})" if name else ""
            return _turn("user", f"Result{call}{by}: {content}")
        keys = {"tool_call_id": call_id, "name": name}
        return _turn(role, content) | {key: value for key, value in keys.items() if value}

    def _call(self, call: Call) -> dict[str, Any]:
        text = json.dumps(call.arguments, ensure_ascii=False)
        arguments = text if self.arguments == "text" else call.arguments
        function = {"name": call.name, "arguments": arguments}
        return {"id": call.id, "type": "function", "function": function}

    def __str__(self) -> str:
        """Returns what is done to turns, in words; empty if they stay as they are."""
        parts = []
        if not self.takes_system:
            parts.append("system text is put before the first user turn")
        if not self.takes_repeats:
            parts.append("turns of one role in a row are joined")
        if self.arguments is None:
            parts.append("calls of tools are written as text")
        if not self.takes_results:
            parts.append("results of tools are written as user turns")
        return ", ".join(parts)


def _tool_rules(render: Render, first: Message, answer: Message, second: Message) -> dict[str, Any]:
    """Returns the rules of a template for calls of tools and their results."""
    call: Message = {"role": "assistant", "content": "", "tool_calls": calls_text([_CALL])}
    result: Message = {"role": "tool", "content": _RESULT, "tool_call_id": _CALL.id}
    chat = [first, call, result, answer, second]
    for rules in (TurnRules(), TurnRules(arguments="text")):
        if not _fault(render, rules.apply(chat)):
            return {"arguments": rules.arguments}
    as_text = TurnRules(arguments=None)
    return {"arguments": None, "takes_results": not _fault(render, as_text.apply(chat))}


def write(render: Render, turns: Sequence[Written]) -> str:
    """Returns the turns as the template writes them.

    Raises TurnsError if it refuses them, or leaves the text or a call of one out.
    """
    try:
        text = render(turns)
    except Exception as error:  # a chat template may raise anything on odd roles
        raise TurnsError(str(error) or type(error).__name__) from error

    @cache
    def squeezed() -> str:
        # Some templates change white space.
        return "".join(text.split())

    for turn in turns:
        content = turn["content"].strip()
        if content not in text and "".join(content.split()) not in squeezed():
            raise TurnsError(f"it leaves out the {turn['role']} turn {content[:40]!r}")
        for call in turn.get("tool_calls", ()):
            if lost := _lost(call["function"], squeezed()):
                raise TurnsError(f"it leaves out {lost[:40]!r} of a call of a tool")
    return text


def _lost(function: Mapping[str, Any], squeezed: str) -> str | None:
    """Returns the first text of a call that is not in what a template wrote, without its white
    space; templates write arguments as they are, as JSON or as Python does."""
    arguments = function["arguments"]
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    for text in (function["name"], *arguments, *strings_of(arguments)):
        ascii_, plain = (json.dumps(text, ensure_ascii=ascii)[1:-1] for ascii in (True, False))
        forms = (text, plain, ascii_, repr(text)[1:-1])
        if not any("".join(form.split()) in squeezed for form in forms):
            return str(text)
    return None


def asked_to_think(turns: Sequence[Message]) -> list[Message]:
    """Returns the turns with a system turn that ends on the call to think first."""
    if turns and turns[0]["role"] == "system":
        return [_message("system", f"{turns[0]['content']}\n\n{THINK_FIRST}"), *turns[1:]]
    return [_message("system", THINK_FIRST), *turns]


def _fault(render: Render, turns: Sequence[Written]) -> str | None:
    """Returns why a template cannot write turns, or None."""
    try:
        write(render, turns)
    except TurnsError as error:
        return str(error)
    return None


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _roles(turns: Sequence[Written]) -> str:
    return ", ".join(turn["role"] for turn in turns)


def _without_system(turns: Sequence[Written]) -> list[dict[str, Any]]:
    """Returns the turns with the text of all system turns before that of the first user turn."""
    texts = [turn["content"] for turn in turns if turn["role"] == "system"]
    rest = [turn for turn in turns if turn["role"] != "system"]
    place = next((i for i, turn in enumerate(rest) if turn["role"] == "user"), None)
    if place is None:
        return [_turn("user", "\n\n".join(texts)), *map(dict, rest)]
    first = _turn("user", "\n\n".join([*texts, rest[place]["content"]]))
    return [*map(dict, rest[:place]), first, *map(dict, rest[place + 1 :])]


def _joined(turns: Sequence[Written]) -> list[dict[str, Any]]:
    """Returns the turns with those of one role in a row as one."""
    joined: list[dict[str, Any]] = []
    for turn in turns:
        # Results of several calls are turns of their own for every template that writes them.
        if joined and joined[-1]["role"] == turn["role"] != "tool":
            calls = [*joined[-1].get("tool_calls", ()), *turn.get("tool_calls", ())]
            text = f"{joined[-1]['content']}\n\n{turn['content']}"
            joined[-1] = _turn(turn["role"], text) | ({"tool_calls": calls} if calls else {})
        else:
            joined.append(dict(turn))
    return joined
