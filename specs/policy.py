"""Policies, the packs they form, and the specs compiled from them.

A compiled spec is the exact text that a model is shown. Its hash is the spec version stamped on
every row made with it, so whatever changes a `render` makes every such row stale.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

Detail = Literal["full", "summary"]

NO_CATEGORY = "none"
"""The word of a judge for a prompt that no category fits."""


class Outcome(StrEnum):
    """The way a policy wants a request handled."""

    COMPLY = "comply"
    REFUSE = "refuse"
    SAFE_COMPLETE = "safe_complete"


class PackError(ValueError):
    """A policy pack that cannot be used; the message names each fault with file and line."""


TurnLabel = Literal["System", "Developer", "User", "Answer", "Good answer", "Bad answer"]

GUIDE = "guide"
"""The word in place of an outcome for a rule that says how to answer, and no more."""
GUIDE_LINE = "Rules marked guide neither comply nor refuse; they say how to answer."
"""Explains the word to a model, in each policy that has such a rule."""
AUTHORITY_LINE = "From highest to lowest; a lower one cannot override a higher one."
"""Explains the order of the authorities to a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """Something that a rule does not cover, and the rule that does."""

    text: str
    goto: str | None
    """Id of the rule that covers it; None if no rule does."""

    def render(self) -> str:
        return _part("  Excludes:", self.text, f"(see {self.goto})" if self.goto else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryCase:
    """A request near the edge of a rule, and the outcome it should have."""

    text: str
    outcome: Outcome | None
    """None in a guide rule."""
    because: str = ""
    """The reason for the outcome."""

    def render(self) -> str:
        reason, *lines = self.because.split("\n")
        if self.outcome is None:
            suffix = f"(because {reason})" if self.because else ""
        else:
            suffix = f"({self.outcome})" + (f", because {reason}" if self.because else "")
        return _part("  Case:", "\n".join([self.text, *lines]), suffix)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A worked example of a rule: a conversation, the right outcome, and the reason."""

    title: str
    outcome: Outcome | None
    """None if the answers alone show what is right."""
    turns: tuple[tuple[TurnLabel, str], ...]
    """(label, text), in the order of the conversation."""
    because: str = ""

    def render(self) -> str:
        outcome = f"({self.outcome})" if self.outcome else ""
        parts = [_part("  Example:", self.title, outcome)]
        parts += [_part(f"    {label}:", text) for label, text in self.turns]
        if self.because:
            parts.append(_part("    Because:", self.because))
        return "\n".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One numbered rule of a policy.

    Its texts may have several lines: the first continues the line that names the part, the others
    (lists, tables, code) stand indented below it.
    """

    id: str
    """One to three capitals and one or two digits, such as `K3`; unique in the pack."""
    title: str
    outcome: Outcome | None
    """None of a guide rule, which says how to answer and neither refuses nor complies."""
    text: str
    level: str = ""
    """One of the policy's levels. Empty: none."""
    authority: str = ""
    """One of the pack's authorities. Empty: the policy's."""
    includes: tuple[str, ...] = ()
    excludes: tuple[Exclusion, ...] = ()
    cases: tuple[BoundaryCase, ...] = ()
    unclear: tuple[str, ...] = ()
    """The conduct where the rule's facts are not known."""
    examples: tuple[Example, ...] = ()

    @property
    def effect(self) -> str:
        """The outcome, or `guide`."""
        return self.outcome.value if self.outcome else GUIDE

    def render(self) -> str:
        """Returns the rule as a model reads it: the subject first, then id, outcome and text."""
        marks = ", ".join(filter(None, (self.id, self.effect, self.level, self.authority)))
        # Deeper than the lines below, so that no line of the text is read as one of them.
        parts = [_part(f"- {self.title} [{marks}]:", self.text, below="    ")]
        parts += [_part("  Includes:", text) for text in self.includes]
        parts += [item.render() for item in self.excludes]
        parts += [item.render() for item in self.cases]
        parts += [_part("  Unclear:", text) for text in self.unclear]
        parts += [example.render() for example in self.examples]
        return "\n".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The policy of one category."""

    id: str
    """The category's name in prompts, tables and recipes."""
    title: str
    version: str
    summary: Mapping[str, str]
    """The subjects of each outcome and of `guide`, in the order in which a model reads them."""
    terms: tuple[tuple[str, str], ...]
    """Words with their meanings."""
    rules: tuple[Rule, ...]
    style: str = ""
    """Style guidelines of this category alone."""
    authority: str = ""
    """One of the pack's authorities, which its rules have that name none. Empty: none."""
    goal: str = ""
    scope: str = ""
    levels: tuple[tuple[str, str], ...] = ()
    """Names of levels with their meanings."""
    unclear: tuple[str, ...] = ()
    """The conduct where facts are not known, whichever rule applies."""

    @property
    def is_guide(self) -> bool:
        """True if every rule is a guide rule, so that no prompt has an ideal response by it."""
        return all(rule.outcome is None for rule in self.rules)

    def render_summary(self) -> str:
        """Returns the policy's line in every spec of its pack."""
        parts = [f"{outcome} {text}" for outcome, text in self.summary.items()]
        return f"- {self.id}: {'; '.join(parts)}"

    def render(self) -> str:
        """Returns the policy in full."""
        parts = [f"# Policy {self.id}" + (f" ({self.authority})" if self.authority else "")]
        parts += [_part("Goal:", self.goal)] if self.goal else []
        parts += [_part("Scope:", self.scope)] if self.scope else []
        parts += [_part(f"- {term}:", meaning) for term, meaning in self.terms]
        parts += [_part(f"Level {name}:", meaning) for name, meaning in self.levels]
        if any(rule.outcome is None for rule in self.rules):
            parts.append(GUIDE_LINE)
        parts += [rule.render() for rule in self.rules]
        parts += [_part("Unclear:", text) for text in self.unclear]
        parts += [_part("Style:", self.style)] if self.style else []
        return "\n".join(parts)


def _part(label: str, text: str, suffix: str = "", *, below: str = "") -> str:
    """Returns the lines of one part of a spec: a label, a text, and a suffix of its first line.

    Further lines of the text are indented by two spaces more than the label, or by `below`.
    """
    first, *others = text.split("\n")
    if not below:
        below = " " * (len(label) - len(label.lstrip()) + 2)
    lines = [" ".join(filter(None, (label, first, suffix)))]
    lines += [below + line if line else "" for line in others]
    return "\n".join(lines).removeprefix("\n")


def spec_key(categories: Sequence[str]) -> str:
    """Returns the name of a set of categories; the SQL macro `spec_key` gives the same.

    ["boats", "gates"] → "boats+gates"
    """
    return "+".join(categories)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """spec(category): the text that a model is shown, and the rules it holds in full."""

    categories: tuple[str, ...]
    detail: Detail
    text: str
    rule_ids: tuple[str, ...]

    @property
    def id(self) -> str:
        """The spec version: the first 32 hex digits of the SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]

    @property
    def key(self) -> str:
        """The name of the categories that the spec holds."""
        return spec_key(self.categories)


_OTHER_OUTCOME = {
    Outcome.COMPLY: Outcome.REFUSE,
    Outcome.REFUSE: Outcome.COMPLY,
    Outcome.SAFE_COMPLETE: Outcome.REFUSE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """A set of policies with the principles and the style they share."""

    id: str
    title: str
    version: str
    principles: str
    style: Mapping[str, str]
    """Guidelines for answers of each outcome, and of `guide`."""
    policies: Mapping[str, Policy]
    """By category."""
    authorities: tuple[tuple[str, str], ...] = ()
    """Names of who may give instructions with their meanings, from highest to lowest."""
    not_read: tuple[str, ...] = ()
    """Names of files in the pack's folder that look like policies and are none."""

    @property
    def rules(self) -> Mapping[str, Rule]:
        """Every rule of the pack by its id, in reading order."""
        return {rule.id: rule for policy in self.policies.values() for rule in policy.rules}

    @property
    def rule_ids(self) -> tuple[str, ...]:
        """Every rule id of the pack, in reading order."""
        return tuple(self.rules)

    def rule(self, rule_id: str) -> Rule:
        """Returns the rule with that id. Raises KeyError if the pack has no such rule."""
        return self.rules[rule_id]

    def spec(self, categories: Sequence[str], *, detail: Detail = "full") -> Spec:
        """Compiles spec(category) (arXiv 2412.16339, section 3.1).

        Summaries of all categories, principles and style come first, because they are the same
        for every category; then, unless `detail` is `summary`, each named category in full.
        Raises PackError if the pack lacks a category, or if a full spec names none.
        """
        chosen = tuple(sorted(set(categories)))
        unknown = [name for name in chosen if name not in self.policies]
        if unknown:
            raise PackError(
                f"pack {self.id} has no category {unknown[0]!r}; use one of "
                f"{', '.join(self.policies)}, or map it to one of them in the recipe's source"
            )
        if not chosen and detail == "full":
            raise PackError("a full spec needs at least one category; use detail='summary'")
        parts = ["# Policies"]
        parts += [policy.render_summary() for policy in self.policies.values()]
        parts += ["# Principles", _part("", self.principles)]
        if self.authorities:
            parts += ["# Authority", AUTHORITY_LINE]
            parts += [_part(f"- {name}:", meaning) for name, meaning in self.authorities]
        if self.style:
            parts.append("# Style")
            parts += [_part(f"- {outcome}:", text) for outcome, text in self.style.items()]
        rule_ids: tuple[str, ...] = ()
        if detail == "full":
            for name in chosen:
                parts.append(self.policies[name].render())
                rule_ids += tuple(rule.id for rule in self.policies[name].rules)
        return Spec(categories=chosen, detail=detail, text="\n".join(parts), rule_ids=rule_ids)

    def spec_for(self, categories: Sequence[str]) -> Spec:
        """Returns the full spec of those categories that the pack has; the summaries if it has none
        of them."""
        present = [name for name in categories if name in self.policies]
        return self.spec(present) if present else self.spec([], detail="summary")

    def with_other_outcome(self, rule_id: str) -> "Pack":
        """Returns the pack with another outcome for one rule.

        comply → refuse, refuse → comply, safe_complete → refuse

        A guide rule has no other outcome and stays as it is.
        """
        policies = {
            name: replace(policy, rules=tuple(_turned(rule, rule_id) for rule in policy.rules))
            for name, policy in self.policies.items()
        }
        return replace(self, policies=policies)


def _turned(rule: Rule, rule_id: str) -> Rule:
    if rule.id != rule_id or rule.outcome is None:
        return rule
    return replace(rule, outcome=_OTHER_OUTCOME[rule.outcome])
