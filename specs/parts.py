"""The parts of a compiled spec, read back from its text, and what two versions differ in.

A part is a rule, a policy's summary, terms or style, or what all policies share.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from specs.policy import GUIDE, GUIDE_LINE

SHARED = "all policies"
"""Stands for the category of what every spec of a pack holds."""
_HEADING = re.compile(
    r"# (?P<shared>Policies|Principles|Authority|Style)"
    r"|# Policy (?P<category>\S+)(?: \((?P<authority>[^()]+)\))?"
)
_SUMMARY = re.compile(r"- (?P<category>[^\s:]+): ")
_RULE = re.compile(r"- .*? \[(?P<id>[A-Z]{1,3}\d{1,2})(?:, [a-z0-9_-]+){1,3}\]:(?: |$)")
_LABEL = re.compile(r"(?P<part>Goal|Scope|Level|Unclear|Style)(?: [a-z0-9_-]+)?:(?: |$)")
_PARTS = {"Level": "levels"}
"""Names of parts that are not those of their label."""

Place = tuple[str, str]
"""A category and the name of a part, such as ("boats", "rule B2")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A part that differs between two versions of the specs of a pack."""

    category: str
    part: str
    """`rule B2`, `summary`, `goal`, `terms`, `style`, `principles` and their like; `policy` if only
    one has the whole."""
    change: str
    """`added`, `removed` or `edited`; `only in A` and `only in B` of a policy that one lacks."""
    before: str | None
    after: str | None


def parts(text: str) -> dict[Place, str]:
    """Returns the parts of a compiled spec by their places, in their order."""
    found: dict[Place, list[str]] = {}
    shared, category = "", ""
    place: Place = (SHARED, "preface")
    for line in text.split("\n"):
        if heading := _HEADING.fullmatch(line):
            shared, category = heading["shared"] or "", heading["category"] or ""
            place = (category, "terms") if category else (SHARED, shared.lower())
            if heading["authority"]:
                found[category, "authority"] = [heading["authority"]]
            continue
        if category:
            place = (category, _part_of(line, place[1]))
        elif shared == "Policies" and (summary := _SUMMARY.match(line)):
            place = (summary["category"], "summary")
        found.setdefault(place, []).append(line)
    return {where: "\n".join(lines) for where, lines in found.items()}


def _part_of(line: str, part: str) -> str:
    """Returns the part of a policy that a line belongs to, if the line before it is of `part`."""
    if rule := _RULE.match(line):
        return f"rule {rule['id']}"
    if label := _LABEL.match(line):
        return _PARTS.get(label["part"], label["part"].lower())
    if line == GUIDE_LINE:
        return GUIDE
    if line.startswith("- ") and part in ("goal", "scope"):
        return "terms"
    return part


def rule_text(text: str, rule_id: str) -> tuple[str, str] | None:
    """Returns the category of a rule and its text in a compiled spec; None if it has no such."""
    for (category, part), words in parts(text).items():
        if part == f"rule {rule_id}":
            return category, words
    return None


def changes(before: Iterable[str], after: Iterable[str]) -> list[Change]:
    """Returns how the specs of one run differ from those of another, part by part."""
    old, new = _merged(before), _merged(after)
    if not old or not new:
        return []
    unlike = _lone_categories(old, new)
    found = [
        Change(category=category, part="policy", change=side, before=None, after=None)
        for category, side in unlike.items()
    ]
    for place in dict.fromkeys((*old, *new)):
        category, part = place
        was, became = old.get(place), new.get(place)
        if was == became or (category in unlike and part != "summary"):
            continue
        change = "added" if was is None else "removed" if became is None else "edited"
        found.append(Change(category=category, part=part, change=change, before=was, after=became))
    return found


def _merged(texts: Iterable[str]) -> dict[Place, str]:
    return {place: words for text in texts for place, words in parts(text).items()}


def _lone_categories(old: dict[Place, str], new: dict[Place, str]) -> dict[str, str]:
    """Returns the categories whose rules one side alone was compiled with, and which."""
    full = [{category for category, part in side if part != "summary"} for side in (old, new)]
    lone = dict.fromkeys(sorted(full[0] - full[1]), "only in A")
    return lone | dict.fromkeys(sorted(full[1] - full[0]), "only in B")
