"""Policy packs: Markdown folders parsed, checked and compiled into spec(category).

A pack is a folder with one `style.md` (principles and style guidelines) and one Markdown file
a policy. A bad pack is refused with the file, the line, what is wrong and what to do. Whatever is
compiled is plain text whose hash is the version stamped on every row made with it.

    pack = load_pack("specs/harbour")
    spec = pack.spec(["boats"])            # summaries of all + style + boats in full
    spec.text, spec.rule_ids
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal


class Outcome(StrEnum):
    """What a policy wants done with a request."""

    COMPLY = "comply"
    REFUSE = "refuse"
    SAFE_COMPLETE = "safe_complete"


class PackError(ValueError):
    """A policy pack that cannot be used; the message names file and line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """What a rule does not cover, and the rule that does."""

    text: str
    goto: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryCase:
    """A boundary case: a request and the outcome it should have."""

    text: str
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One numbered rule of a policy."""

    id: str
    title: str
    outcome: Outcome
    text: str
    includes: tuple[str, ...] = ()
    excludes: tuple[Exclusion, ...] = ()
    cases: tuple[BoundaryCase, ...] = ()

    def render(self) -> str:
        """The rule as a model reads it: the subject first, then id, outcome and text."""
        lines = [f"- {self.title} [{self.id}, {self.outcome}]: {self.text}"]
        lines += [f"  Includes: {text}" for text in self.includes]
        lines += [f"  Excludes: {item.text} (see {item.goto})" for item in self.excludes]
        lines += [f"  Case: {item.text} ({item.outcome})" for item in self.cases]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One category's policy."""

    id: str
    title: str
    version: str
    summary: Mapping[Outcome, str]
    terms: tuple[tuple[str, str], ...]
    rules: tuple[Rule, ...]
    style: str = ""

    def render_summary(self) -> str:
        """One line: what is complied with, refused and safe-completed."""
        parts = [f"{outcome} {text}" for outcome, text in self.summary.items()]
        return f"- {self.id}: {'; '.join(parts)}"

    def render(self) -> str:
        """The full detail of the policy."""
        parts = [f"# Policy {self.id}"]
        parts += [f"- {term}: {meaning}" for term, meaning in self.terms]
        parts += [rule.render() for rule in self.rules]
        if self.style:
            parts.append(f"Style: {self.style}")
        return "\n".join(parts)


def spec_key(categories: Sequence[str]) -> str:
    """Returns the key of a set of categories; the SQL macro of that name gives the same.

    ["boats", "gates"] → "boats+gates"
    """
    return "+".join(categories)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """spec(category): the text a model is shown, and which rules it holds in full."""

    categories: tuple[str, ...]
    detail: Literal["full", "summary"]
    text: str
    rule_ids: tuple[str, ...]

    @property
    def id(self) -> str:
        """The spec version: the first 32 hex digits of the SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]

    @property
    def key(self) -> str:
        """The key of the categories that the spec holds in full."""
        return spec_key(self.categories)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """A set of policies with the style they share."""

    id: str
    title: str
    version: str
    principles: str
    style: Mapping[Outcome, str]
    policies: Mapping[str, Policy]

    @property
    def rule_ids(self) -> tuple[str, ...]:
        """Every rule id of the pack, in reading order."""
        return tuple(rule.id for policy in self.policies.values() for rule in policy.rules)

    def rule(self, rule_id: str) -> Rule:
        """The rule of that id; KeyError where there is none."""
        for policy in self.policies.values():
            for rule in policy.rules:
                if rule.id == rule_id:
                    return rule
        raise KeyError(rule_id)

    def spec(
        self, categories: Sequence[str], *, detail: Literal["full", "summary"] = "full"
    ) -> Spec:
        """Compiles spec(category) (arXiv 2412.16339, section 3.1).

        Summaries of all categories, principles and style come first, because they are the same
        for every category; then, unless `detail` is `summary`, each named category in full.
        Raises PackError for a category the pack does not have.
        """
        chosen = tuple(sorted(set(categories)))
        unknown = [name for name in chosen if name not in self.policies]
        if unknown:
            raise PackError(
                f"pack {self.id} has no category {unknown[0]!r}; it has "
                f"{', '.join(self.policies)}: map the category in the recipe's source"
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
        """Returns the policies of these categories in full; the summaries of all if the pack has
        none of the categories."""
        present = [name for name in categories if name in self.policies]
        return self.spec(present) if present else self.spec([], detail="summary")

    def with_other_outcome(self, rule_id: str) -> "Pack":
        """Returns the pack with another outcome of one rule: comply and refuse trade places, and
        what was to be safe-completed is refused."""
        policies = {
            name: replace(
                policy,
                rules=tuple(
                    replace(rule, outcome=_OTHER_OUTCOME[rule.outcome])
                    if rule.id == rule_id
                    else rule
                    for rule in policy.rules
                ),
            )
            for name, policy in self.policies.items()
        }
        return replace(self, policies=policies)


_OTHER_OUTCOME = {
    Outcome.COMPLY: Outcome.REFUSE,
    Outcome.REFUSE: Outcome.COMPLY,
    Outcome.SAFE_COMPLETE: Outcome.REFUSE,
}
