"""A rule → its angles: the places on both sides of its line at which prompts are to be written.

An angle comes from what the pack says: the rule itself, what it includes and excludes, and its
boundary cases. So does its label: nobody has to ask a model which response is ideal.
"""

from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Literal

from specs.policy import Outcome, Pack, Rule

Side = Literal["inside", "outside"]

_LOOK_ALIKE = {
    Outcome.COMPLY: Outcome.REFUSE,
    Outcome.REFUSE: Outcome.COMPLY,
    Outcome.SAFE_COMPLETE: Outcome.COMPLY,
}
"""The ideal response to what only looks like a request that a rule of this outcome covers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Angle:
    """A place near the line of a rule at which prompts are to be written."""

    category: str
    rule_id: str
    side: Side
    """`inside` if the rule covers the prompts, `outside` if they only look so."""
    ideal_response: Outcome | None
    """Label of the prompts; None if the pack does not say."""
    text: str
    """The place in words."""
    near_id: str | None = None
    """Id of the prompt that the others are to be like, which models fail on."""
    near: str = ""
    """The last message of that prompt."""


def angles(pack: Pack, category: str, rule: Rule) -> tuple[Angle, ...]:
    """Returns the angles of a rule, those of both sides in turn."""
    inside = [f"a request that rule {rule.id} covers"]
    inside += [f"a request of this kind, which rule {rule.id} includes: {t}" for t in rule.includes]
    within: list[tuple[str, Outcome | None]] = [(text, rule.outcome) for text in inside]
    without: list[tuple[str, Outcome | None]] = []
    for case in rule.cases:
        side = within if case.outcome == rule.outcome else without
        side.append((f"a request like this case of rule {rule.id}: {case.text}", case.outcome))
    for item in rule.excludes:
        outcome = pack.rule(item.goto).outcome if item.goto else _look_alike(rule)
        covered = f" and rule {item.goto} covers" if item.goto else ""
        text = f"a request of this kind, which rule {rule.id} excludes{covered}: {item.text}"
        without.append((text, outcome))
    if not without:
        text = f"a request that looks like those of rule {rule.id} by its words or its subject"
        without.append((f"{text}, and is none of them", _look_alike(rule)))
    in_turn = zip_longest(
        [_angle(category, rule, "inside", *one) for one in within],
        [_angle(category, rule, "outside", *one) for one in without],
    )
    return tuple(angle for angle in chain.from_iterable(in_turn) if angle)


def hard_angle(
    category: str, rule: Rule, *, near_id: str, near: str, ideal_response: Outcome | None
) -> Angle:
    """Returns the angle of prompts like one that models fail on; the label is that prompt's."""
    return Angle(
        category=category,
        rule_id=rule.id,
        side="inside" if ideal_response == rule.outcome else "outside",
        ideal_response=ideal_response,
        text=f"a request like the one between the marks, on which models fail: rule {rule.id} "
        "decides it for the same reason, and person, purpose and details are others",
        near_id=near_id,
        near=near,
    )


def _look_alike(rule: Rule) -> Outcome | None:
    return _LOOK_ALIKE[rule.outcome] if rule.outcome else None


def _angle(
    category: str, rule: Rule, side: Side, text: str, ideal_response: Outcome | None
) -> Angle:
    return Angle(
        category=category,
        rule_id=rule.id,
        side=side,
        ideal_response=ideal_response,
        text=text,
    )
