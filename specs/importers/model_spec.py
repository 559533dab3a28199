"""An OpenAI Model Spec in Markdown → a policy pack of guide rules.

A section of the first level below which sections bear an authority becomes a policy, and each
section below it a rule of that authority. The sections of the other first-level sections hold for
all policies: they become the pack's principles and its levels of authority. Examples become worked
examples of their rule. Commentary instructs nobody and is not placed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from specs.importers.dialogue import OPENING, Message, is_dialogue, name_of, read_messages, turns_of
from specs.importers.imported import Imported, Leftovers, lines_of, without_comments
from specs.importers.markdown import file_of, policy_file, style_file
from specs.importers.names import category_of, unique
from specs.importers.outline import Block, Section, read_outline, unindented
from specs.importers.references import References, notes_of, rule_ids
from specs.policy import GUIDE, Example, Pack, Policy, Rule

MARKS = re.compile(
    r"^#+ |\s*\{#[^}]*\}|^!!! ?\w+.*|^~~~\w*$|\*\*Example\*\*:|[(\[]#[\w-]+[)\]]|^\s*\d+[.)]\s"
    r"|</?(?:system|developer|user|assistant|tool|comparison)\b[^>\"]*>|&\w+;"
    r"|<!-- ?(?:GOOD|BAD|OK)\b|\b(?:recipient|name|comment|end_turn)=\"|[][()<>\"]"
)
"""The document's own syntax, between whose marks every word is in the pack or not placed."""
_ON_EXAMPLE = re.compile(
    r"Here,|In (?:the|this) example|The above|The ideal behavior is|Since the (?:developer|user)"
)
"""Begins a paragraph that speaks of the example above it."""
_LONE_TITLE = "the title of an example that does not follow"
_ABOUT_DOCUMENT = ("overview", "structure")
"""Anchors of what says how the document is built, to people who read it."""
_TERM = re.compile(r"\*\*[^*]+(?:\*\*:|:\*\*)\s")
_LEVEL = re.compile(r"^- \*\*(\w+)\*\*: (.*)")
_LEVELS = ("root", "system", "developer", "user", "guideline")


def import_model_spec(text: str) -> Imported:
    """Returns the pack of a Model Spec. Raises ValueError if it has no section."""
    left = Leftovers()
    lines = without_comments(lines_of(text), left, keep=OPENING)
    before, sections = read_outline(lines)
    for block in before:
        _leave(block, "text before the first section", left)
    groups = list(_groups(sections))
    if not groups:
        raise ValueError("no section; give each a heading such as '## Be clear {#be_clear}'")
    frames = [group for group in groups if not any(one.authority for one in group)]
    if len(frames) == len(groups):
        frames = []
    groups = [group for group in groups if group not in frames]
    rules = [one for group in groups for one in _ruled(group)]
    categories: dict[str, str] = {}
    for group in groups:
        category = unique(category_of(group[0].anchor), categories.values())
        categories[group[0].anchor] = category
    heads = {anchor: f"policy {category}" for anchor, category in categories.items()}
    references = References(
        titles={one.anchor: one.title for one in sections},
        marks=heads | rule_ids(rules),
        notes=notes_of(lines),
        left=left,
    )
    reader = _Reader(references=references, categories=categories, left=left)
    authorities, principles = reader.frame([one for group in frames for one in group])
    policies = [reader.policy(group) for group in groups]
    pack = Pack(
        id="model_spec",
        title="Model Spec",
        version="1",
        principles=principles or "Follow the policies.",
        style={},
        authorities=_all_levels(dict(authorities), policies),
        policies={},
    )
    files = {file_of(policy.id): policy_file(policy) for policy in policies}
    return Imported(
        files={"style.md": style_file(pack), **files},
        not_placed=left.in_order(),
        num_sections=len(sections),
        num_rules=len(rules),
        num_examples=sum(len(rule.examples) for policy in policies for rule in policy.rules),
    )


def _all_levels(
    described: Mapping[str, str], policies: Sequence[Policy]
) -> tuple[tuple[str, str], ...]:
    """Returns the levels that the document describes, then those that rules bear besides."""
    used = {rule.authority for policy in policies for rule in policy.rules} - {""}
    others = [name for name in (*_LEVELS, *sorted(used)) if name in used and name not in described]
    return (*described.items(), *((name, "rules of this level") for name in dict.fromkeys(others)))


def _groups(sections: Sequence[Section]) -> Iterator[list[Section]]:
    """Yields each section of the highest level with those below it."""
    top = min((section.level for section in sections), default=1)
    group: list[Section] = []
    for section in sections:
        if section.level == top and group:
            yield group
            group = []
        group.append(section)
    if group:
        yield group


def _ruled(group: Sequence[Section]) -> Sequence[Section]:
    """Returns the sections of a group that become rules: those below the first, and the first if it
    is more than an introduction."""
    head, *below = group
    has_example = any(map(_is_example, head.blocks))
    is_rule = head.authority or not below or has_example
    return group if is_rule else below


def _leave(block: Block, reason: str, left: Leftovers) -> None:
    for number, line in block.numbered:
        if not MARKS.fullmatch(line):
            left.add(number, line, reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Turns sections into the parts of a pack."""

    references: References
    categories: Mapping[str, str]
    """By the anchor of a section of the first level."""
    left: Leftovers

    def policy(self, group: Sequence[Section]) -> Policy:
        head, below = group[0], _ruled(group)
        rules = tuple(self._rule(section) for section in below)
        if head not in below:
            for block in head.blocks:
                if block.kind == "title":
                    _leave(block, _LONE_TITLE, self.left)
        return Policy(
            id=self.categories[head.anchor],
            title=head.title,
            version="1",
            summary={GUIDE: "; ".join(section.title for section in below)},
            terms=(),
            scope="" if head in below else self._body(head),
            rules=rules,
        )

    def _rule(self, section: Section) -> Rule:
        for name, value in section.attributes.items():
            if name != "authority":
                reason = "an attribute that rules of a pack do not have"
                self.left.add(section.line, f"{name}={value}", reason)
        examples = tuple(self._examples(section))
        body = self._body(section)
        return Rule(
            id=self.references.marks[section.anchor],
            title=section.title,
            outcome=None,
            authority=section.authority,
            text=body if re.search(r"\w", body) else f"{section.title}.",
            examples=examples,
        )

    def _body(self, section: Section) -> str:
        """Returns the text of a section without its examples, and leaves its commentary over."""
        parts = []
        for block in section.blocks:
            if block.kind == "note":
                _leave(block, "commentary, which instructs nobody", self.left)
            elif block.kind == "other":
                _leave(block, "HTML, which no model is shown", self.left)
            elif block.kind == "code" and not _is_example(block):
                parts.append("\n".join(block.lines))
            elif block.kind in ("text", "list") and not _is_remark(block, section):
                parts.append(self._words(block))
        return "\n\n".join(part for part in parts if part)

    def _words(self, block: Block) -> str:
        lines = [self.references.prose(line, number) for number, line in block.numbered]
        if block.kind == "text":
            return " ".join(unindented(line).strip() for line in lines)
        return "\n".join(line for line in lines if line.strip())

    def _examples(self, section: Section) -> Iterator[Example]:
        """Yields the examples of a section, each with what the document says of it."""
        for index, block in enumerate(section.blocks):
            below = section.blocks[index + 1] if index + 1 < len(section.blocks) else None
            if _is_example(block):
                is_named = index > 0 and section.blocks[index - 1].kind == "title"
                title = self._title(section.blocks[index - 1]) if is_named else section.title
                remark = self._words(below) if below and _is_remark(below, section) else ""
                yield self._example(title, block, remark)
            elif block.kind == "title" and not (below and _is_example(below)):
                _leave(block, _LONE_TITLE, self.left)

    def _title(self, block: Block) -> str:
        return " ".join(self._words(block).removeprefix("**Example**:").split())

    def _example(self, title: str, block: Block, remark: str) -> Example:
        is_closed = re.fullmatch(r"\s*[`~]{3,}\s*", block.lines[-1])
        lines = block.lines[1 : -1 if is_closed else None]
        messages = read_messages(lines, block.line + 1, self.left)
        reasons = [self._reason(message, messages) for message in messages]
        return Example(
            title=title,
            outcome=None,
            turns=turns_of(messages),
            because=" ".join([*filter(None, reasons), *([remark] if remark else [])]),
        )

    def _reason(self, message: Message, messages: Sequence[Message]) -> str:
        said = self.references.prose(message.reason, message.line)
        against = f"against {self.references.cited(message.anchor)}" if message.anchor else ""
        comment = message.attributes.get("comment", "")
        grade = "acceptable" if message.grade == "OK" else ""
        words = ", ".join(filter(None, (comment, grade, against, said)))
        if not words:
            return ""
        return f"{name_of(message, messages).capitalize()}: {words.rstrip('.')}."

    def frame(self, sections: Sequence[Section]) -> tuple[list[tuple[str, str]], str]:
        """Returns the levels of authority and the principles, which hold for all policies."""
        authorities: list[tuple[str, str]] = []
        principles = []
        for section in sections:
            if section.anchor in _ABOUT_DOCUMENT:
                _leave(section.heading, "a heading without text of its own", self.left)
                for block in section.blocks:
                    _leave(block, "says how the document is built, to its readers", self.left)
                continue
            levels = [block for block in section.blocks if _lists_levels(block)]
            for block in levels:
                above = section.blocks[section.blocks.index(block) - 1]
                section.blocks.remove(block)
                authorities += self._authorities(block)
                if above.kind == "text" and above.lines[-1].rstrip().endswith(":"):
                    section.blocks.remove(above)
                    _leave(above, "introduces a list that stands elsewhere in the pack", self.left)
            for block in section.blocks:
                if _is_example(block) or block.kind == "title" or _is_remark(block, section):
                    _leave(block, "an example outside of any rule", self.left)
            body = self._body(section)
            if body:
                principles.append(_outlined(section.title, body))
            else:
                _leave(section.heading, "a heading without text of its own", self.left)
        return authorities, "\n\n".join(principles)

    def _authorities(self, block: Block) -> Iterator[tuple[str, str]]:
        """Yields the items of a list of levels, each with its paragraphs as one text."""
        name, words = "", [""]
        for line in self._words(block).split("\n"):
            match = _LEVEL.match(line)
            if match and name:
                yield name.lower(), " ".join(words)
            if match:
                name, words = match[1], [match[2]]
            else:
                words.append(unindented(line).strip())
        yield name.lower(), " ".join(words)


def _outlined(title: str, body: str) -> str:
    """Returns a text as a list item, in which each term and its meaning is an item of its own."""
    lines = [f"- **{title}**:", ""]
    indent = "  "
    for paragraph in body.split("\n\n"):
        is_term = bool(_TERM.match(paragraph))
        indent = "    " if is_term else indent
        mark = "  - " if is_term else indent
        first, *others = paragraph.split("\n")
        lines += [mark + first, *(indent + line for line in others), ""]
    return "\n".join(lines).rstrip()


def _lists_levels(block: Block) -> bool:
    found = {match[1].lower() for line in block.lines if (match := _LEVEL.match(line))}
    return block.kind == "list" and found >= set(_LEVELS)


def _is_example(block: Block) -> bool:
    return block.kind == "code" and is_dialogue(block.lines)


def _is_remark(block: Block, section: Section) -> bool:
    """Returns True of a paragraph that speaks of the example right above it."""
    index = section.blocks.index(block)
    follows = index > 0 and section.blocks[index - 1].kind == "code"
    return follows and block.kind == "text" and bool(_ON_EXAMPLE.match(block.lines[0]))
