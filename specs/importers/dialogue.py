"""An example of a Model Spec, between `~~~xml` fences → the turns of a worked example.

The tags stand on lines of their own, and what they hold is not XML: code, angle brackets and
unescaped signs stand in it as they were written.
"""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from specs.importers.imported import Leftovers
from specs.importers.markdown import plain
from specs.policy import TurnLabel

OPENING = re.compile(
    r"\s*<(?P<end>/?)(?P<role>system|developer|user|assistant|tool|comparison)\b(?P<rest>[^>]*)>\s*"
)
"""The tag of a message, which a comment may follow."""
_TAG = re.compile(rf"^{OPENING.pattern}(?:<!--\s*(?P<comment>.*?)\s*-->)?\s*$")
_GRADE = re.compile(r"(?P<grade>GOOD|BAD|OK)\b(?:\[(?P<anchor>[^\]]*)\])?[:,]?\s*(?P<reason>.*)")
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
_LABELS: dict[str, TurnLabel] = {
    "system": "System",
    "developer": "Developer",
    "user": "User",
    "assistant": "Answer",
    "tool": "Answer",
}
_ABOVE = ("System", "Developer")
_GRADED: dict[str, TurnLabel] = {"GOOD": "Good answer", "BAD": "Bad answer"}


@dataclass(slots=True, kw_only=True)
class Message:
    """A message of an example, and what the example says of it."""

    role: str
    attributes: dict[str, str]
    line: int
    grade: str = ""
    """`GOOD`, `BAD`, `OK`, or empty."""
    anchor: str = ""
    """The section that a bad answer goes against."""
    reason: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def label(self) -> TurnLabel:
        return _GRADED.get(self.grade) or _LABELS[self.role]

    @property
    def text(self) -> str:
        """The message as Markdown; the recipient of a call and the name of a tool stand first."""
        body = html.unescape("\n".join(self.lines)).strip("\n")
        name = self.attributes.get("recipient") or self.attributes.get("name")
        mark = f"({'from' if self.role == 'tool' else 'to'} {name}) " if name else ""
        return plain(mark + body)


def is_dialogue(lines: Sequence[str]) -> bool:
    """Returns True if a line is the tag of a message."""
    tags = map(_TAG.match, lines)
    return any(tag and tag["role"] != "comparison" for tag in tags)


def read_messages(lines: Sequence[str], first: int, left: Leftovers) -> list[Message]:
    """Returns the messages between the tags; other lines that have words are left over."""
    messages: list[Message] = []
    current: Message | None = None
    for number, line in enumerate(lines, first):
        tag = _TAG.match(line)
        if tag and (tag["role"] == "comparison" or tag["end"]):
            current = None
        elif tag:
            current = _message(tag, number)
            messages.append(current)
        elif current:
            current.lines.append(line)
        else:
            left.add(number, line, "text of an example outside of any message")
    return messages


def _message(tag: re.Match[str], line: int) -> Message:
    comment = tag["comment"] or ""
    grade = _GRADE.match(comment)
    return Message(
        role=tag["role"],
        attributes=dict(_ATTRIBUTE.findall(tag["rest"])),
        line=line,
        grade=grade["grade"] if grade else "",
        anchor=(grade["anchor"] or "").lstrip("#") if grade else "",
        reason=grade["reason"] if grade else comment,
    )


def turns_of(messages: Sequence[Message]) -> tuple[tuple[TurnLabel, str], ...]:
    """Returns the messages as turns; what a tool says follows the call in the same turn.

    A worked example needs a user's turn and an answer, which stand empty where the document has
    none, and has the messages of a system and a developer before them; a later one is told within
    the turn that it follows.
    """
    turns: list[tuple[TurnLabel, str]] = []
    for message in messages:
        text = message.text or "(nothing)"
        is_late = message.label in _ABOVE and any(label not in _ABOVE for label, _ in turns)
        if turns and (message.role == "tool" or is_late):
            label, above = turns[-1]
            mark = f"(from {message.role}) " if is_late else ""
            turns[-1] = (label, f"{above}\n\n{mark}{text}")
        else:
            turns.append((message.label, text))
    labels = [label for label, _ in turns]
    if "User" not in labels:
        # The answer follows a developer's message, or a call of the model's own.
        turns.insert(sum(label in _ABOVE for label in labels), ("User", "(no message)"))
    if not any("nswer" in label for label in labels):
        turns.append(("Answer", "(no message)"))
    return tuple(turns)


def name_of(message: Message, messages: Sequence[Message]) -> str:
    """Returns how a reason names a message: `bad answer`, or `bad answer 2` if there are more."""
    alike = [other for other in messages if other.label == message.label]
    number = next(i for i, other in enumerate(alike, 1) if other is message)
    return message.label.lower() + (f" {number}" if len(alike) > 1 else "")
