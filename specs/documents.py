"""Policies → the documents that midtraining teaches (arXiv 2605.02087): what each is about.

A document is about one rule or about a whole policy. The generator is shown that part of the pack
alone, so an edited rule makes only the documents about it and about its policy stale.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from specs.policy import Pack, Policy, Spec
from specs.reasoning import find_citations
from specs.wording import words_of

DocumentKind = Literal["explanation", "dialogue", "summary"]

_WANTED: Mapping[DocumentKind, str] = {
    "explanation": "an explanation of the rule: what it covers, what it leaves out, what the "
    "assistant does, and above all the reason, with what would go wrong without it",
    "dialogue": "a dialogue of two people about a request at the line of the rule: one doubts that "
    "the rule is right there, the other goes by it and gives its reasons, and they agree on what "
    "the assistant does",
    "summary": "a summary of the whole policy in other words: what each rule asks for and why, and "
    "how the rules fit together",
}
"""The words by which a document of each kind is asked for."""
_OF_POLICIES: frozenset[DocumentKind] = frozenset({"summary"})
"""Kinds about a whole policy; the others are about one rule."""
_QUOTED_WORDS = 5
"""Words in a row that make a quote; fewer are chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A rule or a policy that documents of one kind are about."""

    kind: DocumentKind
    policy: Policy
    """The policy, with the rule alone if the documents are about one."""
    spec: Spec
    """The text that the generator is shown."""

    @property
    def rule_id(self) -> str | None:
        """Id of the rule; None for the whole policy."""
        return None if self.kind in _OF_POLICIES else self.policy.rules[0].id

    @property
    def wanted(self) -> str:
        """The kind of document in words."""
        return _WANTED[self.kind]


def subjects(pack: Pack, kinds: Sequence[DocumentKind]) -> list[Subject]:
    """Returns what documents of these kinds are about: policy by policy, kind by kind."""
    return [
        Subject(kind=kind, policy=part, spec=_spec_of(pack, part))
        for policy in pack.policies.values()
        for kind in kinds
        for part in _parts(policy, kind)
    ]


def _parts(policy: Policy, kind: DocumentKind) -> list[Policy]:
    if kind in _OF_POLICIES:
        return [policy]
    return [replace(policy, rules=(rule,)) for rule in policy.rules]


def _spec_of(pack: Pack, policy: Policy) -> Spec:
    """Returns the spec of a pack that has this policy alone."""
    return replace(pack, policies={policy.id: policy}).spec([policy.id])


def is_quoting(text: str, subject: Subject) -> bool:
    """Returns True if a document cites a rule of its subject by id, or repeats five words of its
    policy in a row."""
    rule_ids = [rule.id for rule in subject.policy.rules]
    if find_citations(text, rule_ids=rule_ids).known:
        return True
    return not _runs(text).isdisjoint(_runs(subject.policy.render()))


def _runs(text: str) -> set[tuple[str, ...]]:
    """Returns every run of five words of a text."""
    words = list(words_of(text))
    starts = range(len(words) - _QUOTED_WORDS + 1)
    return {tuple(words[start : start + _QUOTED_WORDS]) for start in starts}
