"""A taxonomy, with a paragraph for each category → a skeleton pack of one rule a policy."""

import re
from collections.abc import Iterator, Sequence

from specs.importers.defaults import TO_FINISH, default_style
from specs.importers.imported import Imported, Leftovers, lines_of
from specs.importers.markdown import file_of, policy_file
from specs.importers.names import category_of, prefix_of
from specs.importers.prompt_sections import Entry, PromptSection
from specs.policy import GUIDE, Outcome, Policy, Rule

MARKS = re.compile(r"^#+ |[*:.]")
"""The syntax of a taxonomy, between whose marks every word is in the pack or not placed."""

_HEADING = re.compile(r"^#{1,6}\s+(?P<title>.+?)\s*#*$")
_NAMED = re.compile(
    r"^(?:\*\*(?P<bold>[^*]+?)[:.]?\*\*[:.]?|(?P<name>\w[^:.!?]{0,60}):)\s+(?P<text>\S.*)$"
)
_CODE = re.compile(r"^[A-Z]{1,3}\d+$")
_CODED = re.compile(r"^(?P<name>[^.]{1,60})\.\s+(?P<text>\S.*)$")


def import_taxonomy(text: str, outcome: str = "refuse") -> Imported:
    """Returns a pack with a policy for each category, whose one rule has that outcome.

    Raises ValueError if the text has no category.
    """
    left = Leftovers()
    policies: list[Policy] = []
    for name, entries in _categories(lines_of(text), left):
        policies.append(_policy(name, entries, outcome, policies))
    if not policies:
        raise ValueError(
            "no category; give each a paragraph 'Name: what it covers', or a heading with a "
            "paragraph below it"
        )
    effect = [Outcome(outcome)] if outcome != GUIDE else []
    style = default_style("taxonomy", "Taxonomy", effect)
    return Imported(
        files={"style.md": style, **{file_of(one.id): policy_file(one) for one in policies}},
        not_placed=left.in_order(),
        num_sections=len(policies),
        num_rules=len(policies),
        num_examples=0,
        to_finish=(
            TO_FINISH,
            f"each policy has one rule with the outcome {outcome}; split it into rules, and give "
            "each its outcome, what it excludes, and cases",
        ),
    )


def _categories(lines: Sequence[str], left: Leftovers) -> Iterator[tuple[str, list[Entry]]]:
    """Yields the name of each category and its paragraphs."""
    name, entries, heading = "", list[Entry](), 0
    for section in _sections(lines):
        if section.title:
            if name:
                yield from _whole(name, entries, heading, left)
            name, entries, heading = section.title, [], section.line
        for entry in section.entries():
            named = None if section.title else _name_and_text(entry.text)
            if named:
                if name:
                    yield name, entries
                name, entries = named[0], [Entry(text=named[1], line=entry.line, is_item=False)]
                entries[0].below = entry.below
            elif name:
                entries.append(entry)
            else:
                left.add(entry.line, entry.text, "text before the first category")
    if name:
        yield from _whole(name, entries, heading, left)


def _whole(
    name: str, entries: list[Entry], line: int, left: Leftovers
) -> Iterator[tuple[str, list[Entry]]]:
    """Yields a category that has a text; the heading of one that has none is left over."""
    if entries:
        yield name, entries
    else:
        left.add(line, name, "a heading without a paragraph below it")


def _sections(lines: Sequence[str]) -> list[PromptSection]:
    sections = [PromptSection(title="", line=1, role="unknown", first=1)]
    for number, line in enumerate(lines, 1):
        heading = _HEADING.match(line)
        if heading:
            section = PromptSection(title=heading["title"], line=number, role="unknown")
            section.first = number + 1
            sections.append(section)
        else:
            sections[-1].lines.append(line)
    return sections


def _name_and_text(text: str) -> tuple[str, str] | None:
    match = _NAMED.match(text)
    if not match:
        return None
    name, rest = match["bold"] or match["name"], match["text"]
    coded = _CODED.match(rest) if _CODE.match(name) else None
    # "S1: Violent Crimes. Models must not …"
    return (f"{name} {coded['name']}", coded["text"]) if coded else (name, rest)


def _policy(name: str, entries: Sequence[Entry], outcome: str, others: Sequence[Policy]) -> Policy:
    category = category_of(name)
    while any(one.id == category for one in others):
        category += "_2"
    prefix = prefix_of(category)
    taken = {rule.id for one in others for rule in one.rules}
    rule = Rule(
        id=next(x for n in range(1, 100) if (x := f"{prefix}{n}") not in taken),
        title=name,
        outcome=None if outcome == GUIDE else Outcome(outcome),
        text="\n\n".join(entry.text for entry in entries),
        includes=tuple(text for entry in entries for _, text in entry.below),
    )
    return Policy(
        id=category,
        title=name,
        version="1",
        summary={outcome: name},
        terms=(),
        rules=(rule,),
    )
