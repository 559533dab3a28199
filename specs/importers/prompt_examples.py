"""The examples of a classifier's prompt → contents with their labels."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from specs.importers.imported import Leftovers

_HEADING = re.compile(r"^(?:#+\s*|\**)example\b(?P<rest>.*?)\**$", re.IGNORECASE)
_BY_RULE = re.compile(r"\bby rule (?P<rule>\w+)")
_LABELLED = re.compile(r"\((?:label:?\s*)?(?P<label>[^()]+)\)", re.IGNORECASE)
_FIELD = re.compile(
    r"^(?:[-*]\s+)?\**(?P<name>content|input|text|user|assistant|answer|output|label"
    r"|classification|verdict|expected response|because|rationale|reason)(?:\s*\([^)]*\))?\**:"
    r"\**\s*(?P<words>.*)$",
    re.IGNORECASE,
)
_ONE_LINE = re.compile(r"^(?:[-*]\s+|\d+[.)]\s+)?(?P<content>.+?)\s*(?:->|→|=>)\s*(?P<label>\S.*)$")
_CONTENT = ("content", "input", "text", "user", "assistant")
_SPEAKERS = ("user", "assistant")
_REASON = ("because", "rationale", "reason")
_JSON = re.compile(r'"violation":\s*(?P<label>[01])(?:.*?"policy_category":\s*"(?P<rule>\w+)")?')
_OUTCOMES = {
    "1": "refuse",
    "violates": "refuse",
    "unsafe": "refuse",
    "invalid": "refuse",
    "refuse": "refuse",
    "0": "comply",
    "safe": "comply",
    "valid": "comply",
    "comply": "comply",
    "safe_complete": "safe_complete",
}


@dataclass(slots=True, kw_only=True)
class Labelled:
    """An example: what is classified, its label, and the rule that decides, if one is named."""

    line: int
    content: str = ""
    label: str = ""
    because: str = ""
    rule: str = ""
    lines: list[tuple[int, str]] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """The outcome that the label stands for; empty if there is no label, or an unknown one."""
        word = re.match(r"\W*(\w+)", self.label)
        return _OUTCOMES.get(word[1].lower(), "") if word else ""


def read_examples(lines: Sequence[str], first: int, left: Leftovers) -> list[Labelled]:
    """Returns the examples that have a content and a label; other lines are left over."""
    found = []
    for example in _examples(lines, first, left):
        found_json = _JSON.search(example.label)
        if found_json:
            example.label = found_json["label"]
            example.rule = found_json["rule"] or example.rule
        if example.content and example.outcome:
            found.append(example)
            continue
        missing = "label that can be read" if example.content else "content"
        for number, line in example.lines:
            left.add(number, line, f"an example without a {missing}")
    return found


def _examples(lines: Sequence[str], first: int, left: Leftovers) -> Iterator[Labelled]:
    current: Labelled | None = None
    open_field = ""
    for number, line in enumerate(lines, first):
        words = line.strip()
        if not words:
            # A content may have several paragraphs; what follows an answer is not part of it.
            open_field = open_field if open_field in _CONTENT else ""
            continue
        part = _FIELD.match(words)
        heading = _HEADING.match(words)
        one_line = None if part or heading or open_field else _ONE_LINE.match(words)
        name = part["name"].lower() if part else ""
        # A conversation goes on until its label.
        goes_on = current and current.content and open_field in _CONTENT and name in _SPEAKERS
        begins = heading or one_line or (name in _CONTENT and not goes_on)
        if begins and (current is None or current.content or heading):
            if current:
                yield current
            current, open_field = Labelled(line=number), ""
        if current is None:
            left.add(number, line, "text before the first example")
            continue
        if not (heading or one_line or part or open_field):
            left.add(number, line, "text of an example that is neither its content nor its label")
            continue
        current.lines.append((number, line))
        if heading:
            _read_heading(heading["rest"], current)
        elif one_line:
            current.content, current.label = _unquoted(one_line["content"]), one_line["label"]
        elif part:
            open_field = name
            _put(current, name, words if goes_on else part["words"])
        else:
            _put(current, open_field, words)
    if current:
        yield current


def _read_heading(rest: str, example: Labelled) -> None:
    rule, label = _BY_RULE.search(rest), _LABELLED.search(rest)
    example.rule = rule["rule"] if rule else ""
    example.label = label["label"] if label else ""


def _put(example: Labelled, name: str, words: str) -> None:
    if name in _CONTENT:
        example.content = _unquoted(f"{example.content} {words}".strip())
    elif name in _REASON:
        example.because = f"{example.because} {words}".strip()
    elif words:
        # Words that follow the label say why.
        label, _, reason = words.partition(" ") if not words.startswith("{") else (words, "", "")
        if example.label:
            example.because = f"{example.because} {words}".strip()
        else:
            example.label, example.because = label, reason.strip(" -–—:")


def _unquoted(text: str) -> str:
    match = re.fullmatch(r'["“](?P<inner>[^"“”]*)["”]', text)
    return match["inner"] if match else text
