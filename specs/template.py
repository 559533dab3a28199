"""Templates: the words around a spec, in sets that ship with Precept or folders of one's own.

A template is a Markdown file, cut into messages by lines such as `=== system ===`. Its id is the
hash of its text: neither the set nor the folder that it comes from is hashed. A folder may hold a
few templates alone; the sets named after it, and `spec_first` in the end, have the others.
"""

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NotRequired, TypedDict, get_args


class Message(TypedDict):
    """One turn of a chat; a key that is not there may also be None."""

    role: str
    content: str
    tool_calls: NotRequired[str | None]
    """Calls of tools, as JSON text (`specs.calls`)."""
    tool_call_id: NotRequired[str | None]
    """Id of the call whose result the turn is."""
    name: NotRequired[str | None]
    """Name of the tool, of a result whose call is only told in text."""


TemplateKind = Literal[
    "generator",
    "judge",
    "criteria",
    "helpfulness",
    "assign",
    "strongreject",
    "classes",
    "propositions",
    "attacker",
    "retrieval",
    "honesty",
    "fill",
    "critique",
    "revision",
    "document",
]
"""The file stem of a template."""

TemplateNames = str | Sequence[str]
"""A set or a folder, or several, of which the first that has a template counts."""

DEFAULT_SET = "spec_first"
SETS = Path(__file__).parent / "templates"
"""`spec_first` puts the text that rows share first, so that an engine's prefix cache serves it;
`paper` keeps the order of figures 5 and 6 of arXiv 2412.16339; `safeguard` has policies as
gpt-oss-safeguard expects them; `harbour` is the scale model's."""

_NEEDED: Mapping[TemplateKind, tuple[str, ...]] = {
    "generator": ("spec", "conversation"),
    "judge": ("spec", "conversation", "reasoning", "answer"),
    "criteria": ("spec", "conversation", "reasoning", "answer", "criteria", "form"),
    "helpfulness": ("conversation", "answer"),
    "assign": ("spec", "categories", "conversation"),
    "strongreject": ("conversation", "answer"),
    "classes": ("conversation", "answer"),
    "propositions": ("propositions", "conversation", "answer"),
    "attacker": ("goal", "conversation"),
    "retrieval": ("spec", "categories", "excerpts"),
    "honesty": ("spec", "conversation", "reasoning", "answer"),
    "fill": ("spec", "rule", "place"),
    "critique": ("rules", "conversation", "answer"),
    "revision": ("conversation", "answer", "critique"),
    "document": ("spec", "subject", "kind"),
}
_METADATA = ("metadata", "metadata_instruction")
_OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "judge": _METADATA,
    "criteria": _METADATA,
    "fill": ("near",),
}
_SECTION = re.compile(r"^=== (?P<role>[a-z]+) ===\n", re.MULTILINE)
_HEADER_LIKE = re.compile(r"\s*={2,}\s*(?P<role>\w[\w ]*?)\s*={2,}\s*")
"""A line of nothing but such marks underlines a heading of Markdown."""
_PLACEHOLDER = re.compile(r"\{\{(?P<name>[a-z_]+)\}\}")
_PLACEHOLDER_LIKE = re.compile(r"\{\{(?P<name>[^{}\n]*)\}\}")
_ROLES = ("system", "user", "assistant")
_LONGEST_QUOTE = 40


class TemplateError(ValueError):
    """Templates that cannot be used: a fault a line, with file, line and remedy."""


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt with placeholders, cut into messages by lines such as `=== system ===`."""

    name: str
    text: str

    @property
    def id(self) -> str:
        """The template version: the first 32 hex digits of the SHA-256 of its text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]

    @property
    def placeholders(self) -> frozenset[str]:
        """Names of the values that it is filled with."""
        return frozenset(match["name"] for match in _PLACEHOLDER.finditer(self.text))

    def fill(
        self, values: Mapping[str, str], *, conversation: Sequence[Message] = ()
    ) -> list[Message]:
        """Returns the template as messages; a section `conversation` becomes the turns given.

        A line of nothing but empty placeholders is left out. Raises KeyError if `values` lacks a
        placeholder.
        """
        messages: list[Message] = []
        for role, body in self._sections():
            if role == "conversation":
                messages += conversation
                continue
            lines = []
            for line in body.splitlines():
                filled = _PLACEHOLDER.sub(lambda match: values[match["name"]], line)
                if filled or not line:
                    lines.append(filled)
            messages.append({"role": role, "content": "\n".join(lines)})
        return messages

    def _sections(self) -> list[tuple[str, str]]:
        """Returns role and text of each section."""
        parts = _SECTION.split(self.text)
        return list(zip(parts[1::2], parts[2::2], strict=True))


def shipped_sets() -> list[str]:
    """Returns the names of the sets that come with Precept."""
    return sorted(folder.name for folder in SETS.iterdir() if folder.is_dir())


def load_template(kind: TemplateKind, names: TemplateNames) -> Template:
    """Returns the template of a kind, from the first of the sets and folders that has it.

    A file is read once, until `forget_templates`. Raises TemplateError if it cannot be used.
    """
    return _load(kind, (names,) if isinstance(names, str) else tuple(names))


def forget_templates() -> None:
    """Makes the next use of each template read its file again."""
    _load.cache_clear()


@cache
def _load(kind: TemplateKind, names: tuple[str, ...]) -> Template:
    path = next(path for path in _places(kind, names) if path.is_file())
    text = read_template(path)
    if faults := list(_faults(kind, path, text)):
        raise TemplateError("\n".join(faults))
    return Template(name=f"{path.parent.name}/{kind}", text=text)


def _places(kind: str, names: Sequence[str]) -> list[Path]:
    """Returns the files in which a template may stand, the first choice first."""
    return [folder_of(name) / f"{kind}.md" for name in (*names, DEFAULT_SET)]


def folder_of(name: str) -> Path:
    """Returns the folder of a set, or a folder as it is named."""
    return SETS / name if name in shipped_sets() else Path(name)


def check_templates(names: TemplateNames) -> None:
    """Raises TemplateError with all faults of the sets and folders, or if one is none."""
    faults = []
    for name in (names,) if isinstance(names, str) else names:
        folder = folder_of(name)
        files = sorted(folder.glob("*.md")) if folder.is_dir() else []
        if not files and not any(folder.glob("criteria/*.md")):
            raise TemplateError(
                f"no templates at {name}: give one of the sets {', '.join(shipped_sets())}, or a "
                "folder that holds some, such as judge.md"
            )
        for path in files:
            faults += _faults_of_file(path)
    if faults:
        raise TemplateError("\n".join(faults))


def _faults_of_file(path: Path) -> list[str]:
    """Returns the faults of a file in a folder of templates."""
    kinds = get_args(TemplateKind)
    if path.stem.lower() == "readme" or path.name.startswith("."):
        return []
    if path.stem not in kinds:
        close = difflib.get_close_matches(path.stem, kinds, n=1)
        hint = f"did you mean {close[0]}.md?" if close else f"name it one of {', '.join(kinds)}"
        return [f"{path}: not the name of a template; {hint}"]
    try:
        return list(_faults(path.stem, path, read_template(path)))  # type: ignore[arg-type]
    except TemplateError as error:
        return [str(error)]


def read_template(path: Path) -> str:
    """Returns the text of a file; raises TemplateError if it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"{path}: cannot be read: {error}; save it as UTF-8") from error


def _faults(kind: TemplateKind, path: Path, text: str) -> Iterator[str]:
    """Yields what is wrong with the text of a template, each with its line and remedy."""
    if not text.strip():
        yield f"{path}:1: the file is empty; write the template, or delete it to use another's"
        return
    yield from _faults_of_sections(kind, path, text)
    known = [*_NEEDED[kind], *_OPTIONAL.get(kind, ())]
    found = set()
    for number, line in enumerate(text.splitlines(), 1):
        for match in _PLACEHOLDER_LIKE.finditer(line):
            found.add(match["name"])
            if match["name"] not in known:
                yield (
                    f"{path}:{number}: {match[0]} is no placeholder of {kind}; use "
                    f"{', '.join(f'{{{{{name}}}}}' for name in known)}"
                )
    if kind == "generator" and _has_turns(text):
        found.add("conversation")
    for name in _NEEDED[kind]:
        if name not in found:
            section = " or a section === conversation ===" if name == "conversation" else ""
            wanted = f"{{{{{name}}}}}{section if kind == 'generator' else ''}"
            last = len(text.splitlines())
            yield f"{path}:{last}: nothing shows the model the {name}; add {wanted}"


def _has_placeholder(text: str) -> bool:
    return any(match["name"] == "conversation" for match in _PLACEHOLDER.finditer(text))


def _has_turns(text: str) -> bool:
    return any(match["role"] == "conversation" for match in _SECTION.finditer(text))


def _faults_of_sections(kind: TemplateKind, path: Path, text: str) -> Iterator[str]:
    """Yields what is wrong with the lines that cut a template into messages."""
    allowed = (*_ROLES, "conversation") if kind == "generator" else _ROLES
    roles: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER_LIKE.fullmatch(line)
        if header is None:
            if not roles and line.strip():
                roles.append("")
                yield f"{path}:{number}: text before the first section; begin with === system ==="
            elif roles and roles[-1] == "conversation" in allowed and line.strip():
                yield (
                    f"{path}:{number}: text in section conversation would be lost, as the turns "
                    f"take its place: {line.strip()[:_LONGEST_QUOTE]!r}; put it under another role"
                )
            continue
        role = header["role"]
        if role not in allowed:
            yield f"{path}:{number}: unknown role {role!r}; use one of {', '.join(allowed)}"
        elif line != f"=== {role} ===":
            yield f"{path}:{number}: {line!r} is no section; write it === {role} ==="
        elif role == "system" and any(roles):
            yield (
                f"{path}:{number}: a system section stands first and alone, as chat templates "
                "allow one; join the two"
            )
        elif role == "conversation" and ("conversation" in roles or _has_placeholder(text)):
            yield (
                f"{path}:{number}: the conversation stands in the template twice; leave one of "
                "the two out"
            )
        roles.append(role)
    if not {"user", "conversation"} & set(roles):
        yield f"{path}:1: no section === user ===; add it, with what the model is to answer"
    elif roles[-1] not in ("user", "conversation") and roles[-1] in allowed:
        yield f"{path}:1: the last section is {roles[-1]}; end on === user ==="
