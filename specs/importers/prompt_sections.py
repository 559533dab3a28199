"""A prompt of a classifier → its sections, told by what their headings say, and their entries."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from specs.importers.entries import Entry, read_entries
from specs.importers.imported import Leftovers
from specs.importers.prompt_examples import read_examples

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
    r"^(?P<hashes>#{1,6})\s+(?P<marked>.+?)\s*#*$"
    r"|^\*\*(?P<bold>[^*]+?):?\*\*:?\s*(?P<rest>.*)$"
    r"|^(?P<capitals>[A-Z][A-Z &/_-]{3,})(?:\s*\([^)]*\))?:?$"
    r"|^\W*(?P<labelled>[A-Z][\w /&-]* \([A-Z]+\d+\b[^)]*\))$"
    r"|^(?P<named>GOAL|PURPOSE): (?P<text>.+)$|^(?P<samples>Examples?):$"
    r"|^(?P<titled>[A-Z][\w &/-]{0,60} Policy(?: \([^)]*\))?)$"
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
PLAIN_HEADING = re.compile(
    r"(?:(?:key |policy )*(?:definitions?|terms)(?: (?:and|&) (?:definitions?|terms))?|glossary"
    r"|instructions?|output|(?:label|response|output) format|goal|purpose|objective|scope|levels?"
    r"|severity(?: levels?)?|ambiguity(?: (?:and|&) escalation)?|escalation|borderline(?: cases?)?"
    rf"|(?:when )?unclear|examples?|{_BARE.pattern})",
    re.IGNORECASE,
)
"""A heading that says no more than what its section is for."""
_VERDICT = re.compile(r"^\W*Output:\W*(\w+)", re.IGNORECASE)
_SAFE_LABELS = ("valid", "safe", "comply", "0")
_EXAMPLES = re.compile(r"\W*examples\W*", re.IGNORECASE)
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_LABEL = re.compile(r"\s*\((?:label:?\s*)?[01]\)$", re.IGNORECASE)


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
    level: int = 0
    """That of a heading with `#`; 0 of another."""
    first: int = 0
    """Line of the first in `lines`."""
    lines: list[str] = field(default_factory=list)
    samples: "PromptSection | None" = None
    """Examples of criteria, which have their outcome and no labels of their own."""

    @property
    def is_plain(self) -> bool:
        """True if the title says no more than what the section is for."""
        return bool(PLAIN_HEADING.fullmatch(_LABEL.sub("", self.title)))

    def entries(self) -> list[Entry]:
        """Returns the entries of the section without its verdicts."""
        lines = ["" if _VERDICT.match(line) else line for line in self.lines]
        return read_entries(lines, self.first)

    def verdicts(self) -> list[tuple[int, str]]:
        """Returns the lines that say how the classifier is to label the section."""
        own = [(i, x) for i, x in enumerate(self.lines, self.first) if _VERDICT.match(x)]
        return own + (self.samples.verdicts() if self.samples else [])

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
    fence = ""
    for number, line in enumerate(lines, 1):
        mark = _FENCE.match(line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        match = None if fence else _HEADING.match(line.strip())
        section = _section(match, number, sections) if match else None
        if section:
            sections.append(section)
        else:
            sections[-1].lines.append(line)
    return _with_samples([one for one in sections if one.title or any(map(str.strip, one.lines))])


def _with_samples(sections: Sequence[PromptSection]) -> list[PromptSection]:
    """Returns the sections, with the examples that have no labels in the criteria above them."""
    kept: list[PromptSection] = []
    for section in sections:
        above = kept[-1] if kept else section
        is_below = not (above.samples or 0 < section.level <= above.level)
        if section.role == "examples" and above.role in ("outcome", "unknown") and is_below:
            labelled = read_examples(section.lines, section.first, Leftovers())
            if section.verdicts() or (above.effect() and not labelled):
                above.samples = section
                continue
        kept.append(section)
    return kept


def _section(
    match: re.Match[str], number: int, above: Sequence[PromptSection]
) -> PromptSection | None:
    names = ("marked", "bold", "capitals", "labelled", "named", "samples", "titled")
    title = next(match[name] for name in names if match[name]).strip()
    if match["capitals"]:
        title = match[0].rstrip(":")
    rest = match["rest"] or match["text"] or ""
    level = len(match["hashes"] or "")
    role, outcome = role_of(title)
    if match["bold"] and rest and role != "goal":
        # A bold word at the beginning of a line opens an entry.
        return None
    is_late = match["titled"] and any(one.title for one in above)
    if is_late or _is_of_example(match, role, above[-1], level):
        return None
    parent = next((one for one in reversed(above) if one.level < level), above[0])
    if role == "unknown" and parent.level and parent.role not in ("title", "examples"):
        role, outcome = parent.role, parent.outcome
    elif role == "unknown" and not any(one.title for one in above):
        role = "title"
    return PromptSection(
        title=title,
        line=number,
        role=role,
        outcome=outcome,
        is_bare=bool(_BARE.fullmatch(_LABEL.sub("", title))),
        level=level,
        first=number if rest else number + 1,
        lines=[rest] if rest else [],
    )


def _is_of_example(match: re.Match[str], role: Role, above: PromptSection, level: int) -> bool:
    """Returns True of a heading of one example within the examples."""
    if above.role != "examples" or match["labelled"] or _EXAMPLES.fullmatch(match[0]):
        return False
    if match["marked"] and not 0 < above.level < level:
        return bool(re.match(r"example\b", match["marked"], re.IGNORECASE))
    is_heading = bool(match["bold"] or match["marked"])
    return role in ("examples", "outcome") or (role == "unknown" and is_heading)


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
