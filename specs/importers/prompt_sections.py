"""A prompt of a classifier → its sections, told by what their headings say, and their entries."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from markdown_it import MarkdownIt

Role = Literal[
    "title",
    "instruction",
    "goal",
    "scope",
    "definitions",
    "levels",
    "outcome",
    "unclear",
    "examples",
    "unknown",
]

_HEADING = re.compile(
    r"^#{1,6}\s+(?P<marked>.+?)\s*#*$"
    r"|^\*\*(?P<bold>[^*]+?):?\*\*:?\s*(?P<rest>.*)$"
    r"|^(?P<capitals>[A-Z][A-Z &/_-]{3,})(?:\s*\([^)]*\))?:?$"
    r"|^\W*(?P<labelled>[A-Z][\w /&-]* \([A-Z]+\d+\b[^)]*\))$"
    r"|^(?P<named>GOAL|PURPOSE): (?P<text>.+)$"
)
_ROLES: Sequence[tuple[Role, str]] = (
    ("examples", r"^examples?\b"),
    (
        "instruction",
        r"^(?:instructions?\b|output\b|(?:label|response) format|how to (answer|reply))",
    ),
    ("goal", r"^(?:goal|purpose|objective)\b"),
    ("scope", r"^scope\b"),
    ("definitions", r"\b(?:definitions?|key terms|glossary)\b|^terms\b"),
    ("levels", r"^(?:levels?|severity)\b"),
    ("unclear", r"\b(?:ambigu\w*|escalat\w*|unclear|borderline)\b"),
)
_SAFE = re.compile(
    r"\b(?:safe|allowed|acceptable|permitted|comply|valid|(?:does|do|is|are) not violat\w*"
    r"|non-?violat\w*|not prohibited)\b",
    re.IGNORECASE,
)
_VIOLATES = re.compile(
    r"\b(?:violat\w*|unsafe|disallowed|prohibited|forbidden|not allowed|refuse|invalid)\b",
    re.IGNORECASE,
)
_NOT_SAFE = re.compile(r"\bnot (?:safe|allowed|acceptable|permitted)\b", re.IGNORECASE)
_BARE = re.compile(
    r"(?:does not |do not |non-?)?(?:violat\w+|safe(?:_complete)?|unsafe|allowed|disallowed"
    r"|prohibited|comply|refuse|guidance|guide)(?: policy| content| criteria| the policy)*",
    re.IGNORECASE,
)
_VERDICT = re.compile(r"^\W*Output:\W*(\w+)", re.IGNORECASE)
_SAFE_LABELS = ("valid", "safe", "comply", "0")
_LABEL = re.compile(r"\s*\((?:label:?\s*)?[01]\)$", re.IGNORECASE)


@dataclass(slots=True, kw_only=True)
class Entry:
    """A list item or a paragraph, and the items nested below it."""

    text: str
    line: int
    is_item: bool
    below: list[tuple[int, str]] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class PromptSection:
    """A heading with the lines below it."""

    title: str
    line: int
    role: Role
    outcome: str = ""
    """`comply`, `refuse`, `safe_complete` or `guide` of a section of criteria."""
    is_bare: bool = False
    """True if the title names the outcome and nothing else: each of its entries is a rule."""
    first: int = 0
    """Line of the first in `lines`."""
    lines: list[str] = field(default_factory=list)

    def entries(self) -> list[Entry]:
        """Returns the entries of the section without its verdicts."""
        lines = ["" if _VERDICT.match(line) else line for line in self.lines]
        return list(_entries(lines, self.first))

    def verdicts(self) -> list[tuple[int, str]]:
        """Returns the lines that say how the classifier is to label the section."""
        return [(i, x) for i, x in enumerate(self.lines, self.first) if _VERDICT.match(x)]

    def effect(self) -> str:
        """Returns the outcome that a verdict of the section stands for, else that of its heading;
        empty if the section holds no criteria."""
        if self.role not in ("outcome", "unknown"):
            return ""
        for _, line in self.verdicts():
            match = _VERDICT.match(line)
            return "comply" if match and match[1].lower() in _SAFE_LABELS else "refuse"
        return self.outcome


def read_sections(lines: Sequence[str]) -> list[PromptSection]:
    """Returns the sections; the first has no title if text stands before the first heading."""
    sections = [PromptSection(title="", line=1, role="instruction", first=1)]
    for number, line in enumerate(lines, 1):
        match = _HEADING.match(line.strip())
        section = _section(match, number, sections) if match else None
        if section:
            sections.append(section)
        else:
            sections[-1].lines.append(line)
    return [one for one in sections if one.title or any(map(str.strip, one.lines))]


def _section(
    match: re.Match[str], number: int, above: Sequence[PromptSection]
) -> PromptSection | None:
    title = next(
        match[name] for name in ("marked", "bold", "capitals", "labelled", "named") if match[name]
    ).strip()
    if match["capitals"]:
        title = match[0].rstrip(":")
    rest = match["rest"] or match["text"] or ""
    role, outcome = role_of(title)
    if match["bold"] and rest and role != "goal":
        # A bold word at the beginning of a line opens an entry.
        return None
    if above[-1].role == "examples" and role in (
        ("examples", "outcome", "unknown") if match["bold"] else ("examples", "outcome")
    ):
        # A heading of one example within the examples.
        return None
    if role == "unknown" and not any(one.title for one in above):
        role = "title"
    return PromptSection(
        title=title,
        line=number,
        role=role,
        outcome=outcome,
        is_bare=bool(_BARE.fullmatch(_LABEL.sub("", title))),
        first=number if rest else number + 1,
        lines=[rest] if rest else [],
    )


def role_of(title: str) -> tuple[Role, str]:
    """Returns what a section of that title holds, and the outcome of its criteria."""
    words = title.strip().lower()
    for name in ("safe_complete", "guidance", "guide"):
        if words.startswith(name):
            return "outcome", "guide" if name.startswith("guid") else name
    for role, pattern in _ROLES:
        if re.search(pattern, words):
            return role, ""
    if _SAFE.search(words) and not _NOT_SAFE.search(words):
        return "outcome", "comply"
    if _VIOLATES.search(words) or _NOT_SAFE.search(words):
        return "outcome", "refuse"
    return "unknown", ""


_NEW_ENTRY = re.compile(r"\*\*|[A-Z]{1,3}\d+(?:\.\w+)?\s")


def _entries(lines: Sequence[str], first: int) -> Iterator[Entry]:
    """Yields the entries of a text; headings, tables and code are paragraphs of their own."""
    tokens = MarkdownIt("commonmark").disable("reference").parse("\n".join(lines))
    depth = 0
    current: Entry | None = None
    for token in tokens:
        depth += {"list_item_open": 1, "list_item_close": -1}.get(token.type, 0)
        if token.type == "list_item_open" and depth == 1 and token.map:
            current = Entry(text="", line=token.map[0] + first, is_item=True)
        elif token.type == "list_item_close" and depth == 0 and current:
            yield current
            current = None
        elif token.type in ("inline", "fence", "code_block", "html_block") and token.map:
            line = token.map[0] + first
            if current and not current.text:
                current.text = _joined(token.content)
            elif current:
                current.below.append((line, _joined(token.content)))
            else:
                yield from _paragraph(token.content, line)


def _paragraph(content: str, line: int) -> Iterator[Entry]:
    entry: Entry | None = None
    for number, words in enumerate(content.split("\n"), line):
        if entry and not _NEW_ENTRY.match(words):
            entry.text += f" {words.strip()}"
        else:
            if entry:
                yield entry
            entry = Entry(text=words.strip(), line=number, is_item=False)
    if entry and entry.text:
        yield entry


def _joined(content: str) -> str:
    return " ".join(content.split())
