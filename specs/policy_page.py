"""A page of a pack → the policy of one category."""

import re
from collections.abc import Sequence

from specs.blocks import Block, item_text, layout, one_line
from specs.pages import Page
from specs.parts import parts
from specs.policy import NO_CATEGORY, Policy
from specs.rules import EFFECTS, Context, Found, parse_rules

_SECTIONS = ["Goal", "Scope", "Terms", "Levels", "Rules", "When unclear", "Style"]
_ID = re.compile(r"[a-z0-9_]+")
_TERM = re.compile(r"^\*\*(?P<term>.+?)\*\*:(?: (?P<meaning>.+))?$")
_NAMED = re.compile(r"^(?P<bold>\*\*)?(?P<name>[a-z0-9_-]+)(?(bold)\*\*): (?P<meaning>.+)$")


def parse_policy(page: Page, authorities: Sequence[str] | None, found: Found) -> Policy:
    """Returns the policy of a page, as far as it can be read; the rest is faults.

    `authorities` are those of the pack, or None if they cannot be known.
    """
    page.refuse_other_keys(["id", "title", "version", *EFFECTS, "authority"])
    summary = {key: page.take(key) for key in EFFECTS if key in page.front}
    if not summary and page.has_front:
        effects = ", ".join(EFFECTS)
        page.fault(2, "front matter has no summary", f"add a line for at least one of {effects}")
    sections = page.sections(_SECTIONS)
    levels = named_items(page, sections.get("Levels", []), taken=authorities or ())
    names = [name for name, _ in levels]
    context = Context(page=page, levels=names, authorities=authorities, found=found)
    policy = Policy(
        id=_parse_id(page),
        title=page.take("title"),
        version=page.take("version"),
        summary=summary,
        authority=_parse_authority(page, authorities),
        goal=_text(page, sections.get("Goal", [])),
        scope=_text(page, sections.get("Scope", [])),
        terms=_parse_terms(page, sections.get("Terms", [])),
        levels=levels,
        rules=parse_rules(context, sections.get("Rules", [])),
        unclear=_parse_unclear(page, sections.get("When unclear", [])),
        style=prose(page, sections.get("Style", [])),
    )
    _refuse_forged_parts(page, policy)
    return policy


def prose(page: Page, blocks: Sequence[Block]) -> str:
    """Returns a section of guidelines, on one line unless it has nested lists, tables or code."""
    _refuse_headings(page, blocks)
    return one_line(blocks)


def _text(page: Page, blocks: Sequence[Block]) -> str:
    _refuse_headings(page, blocks)
    return layout(blocks)


def _refuse_headings(page: Page, blocks: Sequence[Block]) -> None:
    for block in blocks:
        if block.kind in ("h2", "h3"):
            page.fault(
                block.line,
                f"a heading within a section of text: {block.text!r}",
                "write it as a sentence, or as a section with one '#'",
            )


def _parse_id(page: Page) -> str:
    """Returns the category's id: one that a judge can name on a line `Category: id`."""
    category = page.take("id")
    if category and not _ID.fullmatch(category):
        page.fault(
            page.line_of("id"), f"id {category!r}", "use small letters a to z, digits and '_'"
        )
    elif category == NO_CATEGORY:
        page.fault(
            page.line_of("id"),
            f"id {category!r}, by which a judge says that no category fits",
            "give the policy another id",
        )
    return category


def _parse_authority(page: Page, authorities: Sequence[str] | None) -> str:
    """Returns the authority of the policy, or an empty text if it names none."""
    if "authority" not in page.front:
        return ""
    name = page.take("authority")
    if name and authorities is not None and name not in authorities:
        page.fault(
            page.line_of("authority"),
            f"authority {name!r} is not in '# Authority' of style.md",
            f"use one of {', '.join(authorities)}" if authorities else "add the section",
        )
    return name


def _items(blocks: Sequence[Block]) -> list[list[Block]]:
    """Returns the outermost items of a list, each with what is nested in it."""
    items: list[list[Block]] = []
    for block in blocks:
        if not items or not block.depth or (block.depth == 1 and block.marker):
            items.append([block])
        else:
            items[-1].append(block)
    return items


def _parse_terms(page: Page, blocks: Sequence[Block]) -> tuple[tuple[str, str], ...]:
    terms = []
    for head, *nested in _items(blocks):
        match = _TERM.match(head.text) if head.kind in ("text", "item") else None
        if match and (match["meaning"] or nested):
            terms.append((match["term"], item_text(head, match["meaning"] or "", nested)))
        else:
            page.fault(head.line, f"not a term: {head.text!r}", "write '- **term**: meaning'")
    return tuple(terms)


def named_items(
    page: Page, blocks: Sequence[Block], *, taken: Sequence[str] = ()
) -> tuple[tuple[str, str], ...]:
    """Returns the names and meanings of a list of levels or authorities.

    A name that is `taken`, that stands twice or that is an outcome is a fault.
    """
    named: dict[str, str] = {}
    for head, *nested in _items(blocks):
        match = _NAMED.match(head.text) if head.kind == "item" else None
        if not match:
            page.fault(
                head.line,
                f"not a name and its meaning: {head.text!r}",
                "write '- name: meaning', the name in small letters, digits, '_' and '-'",
            )
            continue
        name = match["name"]
        if name in named or name in taken or name in EFFECTS:
            page.fault(head.line, f"the name {name!r} is taken", "choose another")
        named.setdefault(name, item_text(head, match["meaning"], nested))
    return tuple(named.items())


def _parse_unclear(page: Page, blocks: Sequence[Block]) -> tuple[str, ...]:
    texts = []
    for head, *nested in _items(blocks):
        if head.kind == "item":
            texts.append(item_text(head, head.text, nested))
        else:
            page.fault(head.line, f"not a list item: {head.text!r}", "write '- If …, …'")
    return tuple(texts)


def _refuse_forged_parts(page: Page, policy: Policy) -> None:
    """Adds a fault for a text that would read as a part of its own in the compiled spec."""
    own: dict[str, str] = {}
    for rule in policy.rules:
        own.setdefault(f"rule {rule.id}", rule.render())
    for (_, part), text in parts(policy.render()).items():
        is_rule = policy.id and part.startswith("rule ")
        if is_rule and (part not in own or not text.startswith(own[part])):
            fault = f"a text that reads as {part} in the compiled spec"
            page.fault(1, fault, "write its '[id, outcome]:' in other words")
