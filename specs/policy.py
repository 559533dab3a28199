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


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """Something that a rule does not cover, and the rule that does."""

    text: str
    goto: str
    """Id of the rule that covers it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryCase:
    """A request near the edge of a rule, and the outcome it should have."""

    text: str
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One numbered rule of a policy."""

    id: str
    """One to three capitals and one or two digits, such as `K3`; unique in the pack."""
    title: str
    outcome: Outcome
    text: str
    includes: tuple[str, ...] = ()
    excludes: tuple[Exclusion, ...] = ()
    cases: tuple[BoundaryCase, ...] = ()

    def render(self) -> str:
        """Returns the rule as a model reads it: the subject first, then id, outcome and text."""
        lines = [f"- {self.title} [{self.id}, {self.outcome}]: {self.text}"]
        lines += [f"  Includes: {text}" for text in self.includes]
        lines += [f"  Excludes: {item.text} (see {item.goto})" for item in self.excludes]
        lines += [f"  Case: {item.text} ({item.outcome})" for item in self.cases]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The policy of one category."""

    id: str
    """The category's name in prompts, tables and recipes."""
    title: str
    version: str
    summary: Mapping[Outcome, str]
    """The subjects of each outcome, in the order in which a model reads them."""
    terms: tuple[tuple[str, str], ...]
    """Words with their meanings."""
    rules: tuple[Rule, ...]
    style: str = ""
    """Style guidelines of this category alone."""

    def render_summary(self) -> str:
        """Returns the policy's line in every spec of its pack."""
        parts = [f"{outcome} {text}" for outcome, text in self.summary.items()]
        return f"- {self.id}: {'; '.join(parts)}"

    def render(self) -> str:
        """Returns the policy in full."""
        parts = [f"# Policy {self.id}"]
        parts += [f"- {term}: {meaning}" for term, meaning in self.terms]
        parts += [rule.render() for rule in self.rules]
        if self.style:
            parts.append(f"Style: {self.style}")
        return "\n".join(parts)


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
    style: Mapping[Outcome, str]
    """Guidelines for answers of each outcome."""
    policies: Mapping[str, Policy]
    """By category."""
    not_read: tuple[str, ...] = ()
    """Names of files in the pack's folder that look like policies and are none."""

    @property
    def rule_ids(self) -> tuple[str, ...]:
        """Every rule id of the pack, in reading order."""
        return tuple(rule.id for policy in self.policies.values() for rule in policy.rules)

    def rule(self, rule_id: str) -> Rule:
        """Returns the rule with that id. Raises KeyError if the pack has no such rule."""
        for policy in self.policies.values():
            for rule in policy.rules:
                if rule.id == rule_id:
                    return rule
        raise KeyError(rule_id)

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
        parts += ["# Principles", self.principles, "# Style"]
        parts += [f"- {outcome}: {text}" for outcome, text in self.style.items()]
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
        """
        policies = {
            name: replace(policy, rules=tuple(_turned(rule, rule_id) for rule in policy.rules))
            for name, policy in self.policies.items()
        }
        return replace(self, policies=policies)


def _turned(rule: Rule, rule_id: str) -> Rule:
    return replace(rule, outcome=_OTHER_OUTCOME[rule.outcome]) if rule.id == rule_id else rule
