"""Turns of a chat, in the form that a model's chat template can write.

Some templates have no system role, or want users and assistants to take turns. They are asked once,
with stand-ins. Where a template cannot take a system turn, its text is put before the first user
turn, and where it refuses turns of one role in a row, they are joined; a blank line stands between.
A template that can take them is given the turns as they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from specs.prompts import Message
from specs.replies import CLOSE_TAG, OPEN_TAG

_SYSTEM, _FIRST, _ANSWER, _SECOND = "standinsystem", "standinfirst", "standinanswer", "standinlast"
"""Stand-ins, in letters that no template changes."""

THINK_FIRST = (
    f"Before you answer, think step by step between {OPEN_TAG} and {CLOSE_TAG}: begin your reply "
    f"with {OPEN_TAG}, close your reasoning with {CLOSE_TAG}, and write your answer after it."
)
"""Asks a model that has no reasoning of its own for it."""

Render = Callable[[Sequence[Message]], str]
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

    @classmethod
    def of(cls, render: Render) -> "TurnRules":
        """Returns the rules of a template; raises TurnsError if it cannot write a chat at all."""
        first, second = _turn("user", _FIRST), _turn("user", _SECOND)
        answer, system = _turn("assistant", _ANSWER), _turn("system", _SYSTEM)
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
        )

    def apply(self, turns: Sequence[Message]) -> list[Message]:
        """Returns the turns as the template can write them."""
        applied = list(turns)
        if not self.takes_system and any(turn["role"] == "system" for turn in applied):
            applied = _without_system(applied)
        return applied if self.takes_repeats else _joined(applied)

    def __str__(self) -> str:
        """Returns what is done to turns, in words; empty if they stay as they are."""
        parts = []
        if not self.takes_system:
            parts.append("system text is put before the first user turn")
        if not self.takes_repeats:
            parts.append("turns of one role in a row are joined")
        return ", ".join(parts)


def write(render: Render, turns: Sequence[Message]) -> str:
    """Returns the turns as the template writes them.

    Raises TurnsError if it refuses them, or leaves the text of one out.
    """
    try:
        text = render(turns)
    except Exception as error:  # a chat template may raise anything on odd roles
        raise TurnsError(str(error) or type(error).__name__) from error
    squeezed = ""
    for turn in turns:
        content = turn["content"].strip()
        if content in text:
            continue
        # Some templates change white space.
        squeezed = squeezed or "".join(text.split())
        if "".join(content.split()) not in squeezed:
            raise TurnsError(f"it leaves out the {turn['role']} turn {content[:40]!r}")
    return text


def asked_to_think(turns: Sequence[Message]) -> list[Message]:
    """Returns the turns with a system turn that ends on the call to think first."""
    if turns and turns[0]["role"] == "system":
        return [_turn("system", f"{turns[0]['content']}\n\n{THINK_FIRST}"), *turns[1:]]
    return [_turn("system", THINK_FIRST), *turns]


def _fault(render: Render, turns: Sequence[Message]) -> str | None:
    """Returns why a template cannot write turns, or None."""
    try:
        write(render, turns)
    except TurnsError as error:
        return str(error)
    return None


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _roles(turns: Sequence[Message]) -> str:
    return ", ".join(turn["role"] for turn in turns)


def _without_system(turns: Sequence[Message]) -> list[Message]:
    """Returns the turns with the text of all system turns before that of the first user turn."""
    texts = [turn["content"] for turn in turns if turn["role"] == "system"]
    rest = [turn for turn in turns if turn["role"] != "system"]
    place = next((i for i, turn in enumerate(rest) if turn["role"] == "user"), None)
    if place is None:
        return [_turn("user", "\n\n".join(texts)), *rest]
    first = _turn("user", "\n\n".join([*texts, rest[place]["content"]]))
    return [*rest[:place], first, *rest[place + 1 :]]


def _joined(turns: Sequence[Message]) -> list[Message]:
    """Returns the turns with those of one role in a row as one."""
    joined: list[Message] = []
    for turn in turns:
        if joined and joined[-1]["role"] == turn["role"]:
            joined[-1] = _turn(turn["role"], f"{joined[-1]['content']}\n\n{turn['content']}")
        else:
            joined.append(turn)
    return joined
