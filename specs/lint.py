"""A pack that loads → findings: what its author most likely did not mean, with line and remedy.

A fault keeps a pack from loading; a finding does not. The checks read words alone and stay silent
where they are unsure. A pack without a single case is taken for one that needs none.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Literal

from specs.parts import parts
from specs.places import Place, Places
from specs.policy import GUIDE, BoundaryCase, Exclusion, Outcome, Pack, Policy, Rule
from specs.wording import bold_phrases, likeness, mentions, stems, vague_words

Kind = Literal[
    "outcome",
    "summary",
    "no_case",
    "case",
    "term",
    "vague",
    "budget",
    "duplicate",
    "exclusion",
    "version",
]

_SUMMARY_SHARE = 0.4
"""Least share of the words of a summary that its rules must have. The lowest of the
shipped packs is 0.5; a line `refuse` over the rules of another policy has 0.35 at most, but for one
pair of neighbours."""
_ALIKE = 0.8
"""Likeness from which two texts say the same. The most alike rules of the shipped packs have 0.51,
and the most alike cases 0.55."""
_SAME_SUBJECT = 0.7
"""Likeness from which two exclusions speak of the same thing. The most alike of the shipped packs
that point at each other's rules have 0.5."""
_LONG = 6
"""Words from which texts of two policies are compared, and texts need not be equal to be alike."""
_ENDS_IN_RULE = re.compile(
    r"(?:\(?(?:see|to|rule)\s+|[-=]+>?\s*|→\s*|[(\[,:]\s*|\s)"
    r"(?P<id>[A-Z]{1,3}[0-9]{1,2})[)\].]*$"
)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """Something in a pack that its author most likely did not mean."""

    place: Place
    kind: Kind
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Measure:
    """The length of a text: by a model's tokenizer, or in words."""

    count: Callable[[str], int] = field(default=lambda text: len(text.split()))
    unit: str = "words"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """The least and the greatest length of a policy; small packs need no least."""

    full: tuple[int, int] = (0, 5000)
    """Of a policy in full, without what all policies of the pack share."""
    summary: tuple[int, int] = (0, 150)
    """Of a policy's line in every spec."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """A policy, its pack, and the lines at which both stand."""

    pack: Pack
    policy: Policy
    places: Places

    def finding(self, kind: Kind, place: Place, text: str, remedy: str) -> Finding:
        return Finding(place=place, kind=kind, text=text, remedy=remedy)

    def at_rule(self, kind: Kind, rule: Rule, said: tuple[str, str], near: str = "") -> Finding:
        """Returns a finding (text, remedy) at the line of a rule at which `near` begins."""
        return self.finding(kind, self.places.of_rule(rule.id, near), *said)

    def at_key(self, kind: Kind, key: str, said: tuple[str, str]) -> Finding:
        """Returns a finding (text, remedy) at a key of the policy's front matter."""
        return self.finding(kind, self.places.of_key(self.policy, key), *said)


def lint(
    pack: Pack,
    places: Places,
    *,
    budgets: Budgets = Budgets(),
    measure: Measure = Measure(),
    former: Sequence[str] = (),
) -> list[Finding]:
    """Returns the findings of a pack by file and line.

    `former` are the texts of specs that models were shown under the pack's present version.
    """
    shown: dict[tuple[str, str], set[str]] = defaultdict(set)
    for text in former:
        for place, words in parts(text).items():
            shown[place].add(words)
    findings: list[Finding] = []
    for policy in pack.policies.values():
        subject = _Subject(pack, policy, places)
        for check in _CHECKS:
            findings += check(subject)
        findings += _over_budget(subject, budgets, measure)
        findings += _same_version(subject, shown)
    for check_pack in (_circles, _alike_cases, _alike_rules):
        findings += check_pack(pack, places)
    return sorted(set(findings))


def _outcomes(subject: _Subject) -> Iterator[Finding]:
    """Yields outcomes that the summary promises and no rule has, and the reverse."""
    policy = subject.policy
    by_rules = {rule.effect for rule in policy.rules}
    by_cases = {case.outcome.value for rule in policy.rules for case in rule.cases if case.outcome}
    for outcome in policy.summary:
        if outcome not in by_rules | by_cases:
            fault = f"the summary says what to {_verb(outcome)}, and no rule of {policy.id} does so"
            said = (fault, f"write a rule ({outcome}), or take the line out")
            yield subject.at_key("outcome", outcome, said)
    for rule in policy.rules:
        if rule.effect not in policy.summary:
            fault = f"rule {rule.id} is {rule.effect}, of which the summary says nothing"
            said = (fault, f"add a line '{rule.effect}: …' to the front matter")
            yield subject.at_rule("outcome", rule, said)


def _verb(outcome: str) -> str:
    return {"safe_complete": "safe-complete", GUIDE: "guide"}.get(outcome, outcome)


def _summary(subject: _Subject) -> Iterator[Finding]:
    """Yields lines of the summary that their rules do not bear out, or that other rules deny."""
    policy = subject.policy
    known = stems(" ".join([policy.title, policy.id, policy.goal, policy.scope]))
    titles = {rule.id: stems(rule.title) for rule in policy.rules}
    for outcome, line in policy.summary.items():
        own = [rule for rule in policy.rules if rule.effect == outcome]
        words = stems(line)
        said = known.union(*(stems(_words_of(rule)) for rule in own))
        if own and words and len(words & said) < _SUMMARY_SHARE * len(words):
            fault = f"few words of the summary's {outcome!r} are in the rules with that outcome"
            yield subject.at_key("summary", outcome, (fault, "say there what those rules say"))
        for part in re.split(r"[,;]| and (?=\w+ \w+)", line):
            subject_words = stems(part)
            if not subject_words or any(subject_words <= stems(_words_of(rule)) for rule in own):
                continue
            for rule in policy.rules:
                if rule.effect != outcome and titles[rule.id] and titles[rule.id] == subject_words:
                    fault = (
                        f"the summary puts {part.strip()!r} under {outcome}, and rule {rule.id} "
                        f"({rule.effect}) is about it"
                    )
                    remedy = f"move it to the line '{rule.effect}:', or mend the rule"
                    yield subject.at_key("summary", outcome, (fault, remedy))


def _words_of(rule: Rule) -> str:
    """Returns the words of a rule that say what it covers."""
    cases = [case.text for case in rule.cases]
    return " ".join([rule.title, rule.text, *rule.includes, *cases])


def _cases(subject: _Subject) -> Iterator[Finding]:
    """Yields rules without a case, and cases whose outcome is not their rule's."""
    rules = [rule for policy in subject.pack.policies.values() for rule in policy.rules]
    has_cases = any(rule.cases or rule.examples for rule in rules)
    outcomes = {rule.id: rule.outcome for rule in rules}
    for rule in subject.policy.rules:
        if has_cases and not rule.cases and not rule.examples:
            remedy = "add a request near its edge: '- Case: … -> " + rule.effect + "'"
            if rule.outcome is None:
                remedy = "add a request that shows it: '- Case: …'"
            yield subject.at_rule("no_case", rule, (f"rule {rule.id} has no case", remedy))
        elsewhere = {outcomes.get(item.goto or "") for item in rule.excludes}
        for case in rule.cases:
            if not _is_explained(case, rule, elsewhere):
                fault = f"a case of rule {rule.id} ({rule.effect}) is {case.outcome}"
                remedy = f"exclude it, '- Excludes: … -> ID' of a rule ({case.outcome}), or move it"
                yield subject.at_rule("case", rule, (fault, remedy), f"Case: {case.text}")


def _is_explained(case: BoundaryCase, rule: Rule, elsewhere: set[Outcome | None]) -> bool:
    """Returns True if a case has its rule's outcome or that of a rule which an exclusion names."""
    return None in (rule.outcome, case.outcome) or case.outcome in {rule.outcome, *elsewhere}


def _terms(subject: _Subject) -> Iterator[Finding]:
    """Yields terms that are defined and never used, and bold words that are used and undefined.

    A policy that defines no term marks none: its bold words stress.
    """
    policy = subject.policy
    body = _body(policy)
    for term, _ in policy.terms:
        meanings = [f"{meaning}." for other, meaning in policy.terms if other != term]
        if not mentions(" ".join([*body, *meanings]), term):
            place = subject.places.of_policy(policy, f"**{term}**")
            yield subject.finding(
                "term", place, f"term {term!r} is never used", "use it in a rule, or take it out"
            )
    defined = " . ".join(term for term, _ in (*policy.terms, *policy.levels))
    for rule in policy.rules if policy.terms else ():
        for phrase in bold_phrases("\n".join([rule.text, *_items(rule)])):
            if not mentions(defined, phrase):
                fault = f"rule {rule.id} marks {phrase!r} as a term, which nothing defines"
                said = (fault, f"add '- **{phrase}**: …' below '# Terms', or take the '**' away")
                yield subject.at_rule("term", rule, said, f"**{phrase}")


def _body(policy: Policy) -> list[str]:
    """Returns the texts of a policy in which its terms may be used."""
    texts = [policy.goal, policy.scope, policy.style, *policy.unclear, *policy.summary.values()]
    texts += [meaning for _, meaning in policy.levels]
    for rule in policy.rules:
        texts += [rule.title, rule.text, *_items(rule), *(case.text for case in rule.cases)]
        texts += [text for example in rule.examples for _, text in example.turns]
        texts += [example.because for example in rule.examples]
        texts += [case.because for case in rule.cases]
    return texts


def _items(rule: Rule) -> list[str]:
    return [*rule.includes, *(item.text for item in rule.excludes), *rule.unclear]


def _vague(subject: _Subject) -> Iterator[Finding]:
    """Yields words of rules that leave the decision to the reader, unless a term defines them."""
    defined = " . ".join(term for term, _ in subject.policy.terms)
    for rule in subject.policy.rules:
        for text in (rule.title, rule.text, *_items(rule)):
            for vague in vague_words(text):
                if mentions(defined, vague.word):
                    continue
                fault = f"rule {rule.id} says {vague.word!r}, which {vague.reason}"
                remedy = "say what decides, or define it below '# Terms'"
                yield subject.at_rule("vague", rule, (fault, remedy), vague.word)


def _exclusions(subject: _Subject) -> Iterator[Finding]:
    """Yields exclusions that end in a rule's id without an arrow."""
    for rule in subject.policy.rules:
        for item in rule.excludes:
            match = _ENDS_IN_RULE.search(item.text) if item.goto is None else None
            if match and match["id"] in subject.pack.rule_ids:
                fault = f"an exclusion of rule {rule.id} ends in {match['id']!r} without an arrow"
                said = (fault, f"write '-> {match['id']}'")
                yield subject.at_rule("exclusion", rule, said, f"Excludes: {item.text}")


_CHECKS: tuple[Callable[[_Subject], Iterator[Finding]], ...] = (
    _outcomes,
    _summary,
    _cases,
    _terms,
    _vague,
    _exclusions,
)

_Step = tuple[str, Exclusion]
"""The id of a rule and one of its exclusions."""


def _circles(pack: Pack, places: Places) -> Iterator[Finding]:
    """Yields exclusions that lead back to their own rule, each circle once."""
    rules = {rule.id: rule for policy in pack.policies.values() for rule in policy.rules}
    told: set[frozenset[_Step]] = set()
    for rule in rules.values():
        for item in rule.excludes:
            steps = _circle(rule, item, rules)
            if not steps or frozenset(steps) in told:
                continue
            told.add(frozenset(steps))
            path = " -> ".join([*(rule_id for rule_id, _ in steps), rule.id])
            yield Finding(
                place=places.of_rule(rule.id, f"Excludes: {item.text}"),
                kind="exclusion",
                text=f"an exclusion leads in a circle: {path}",
                remedy="take it out of the rule that is to decide",
            )


def _circle(rule: Rule, first: Exclusion, rules: Mapping[str, Rule]) -> list[_Step]:
    """Returns the exclusions by which one comes back to its own rule, or none.

    That two rules exclude different things in favour of each other is no circle.
    """
    waiting: list[list[_Step]] = [[(rule.id, first)]]
    while waiting:
        path = waiting.pop()
        goto = path[-1][1].goto
        if goto == rule.id:
            return path
        if goto is None or goto not in rules or goto in dict(path):
            continue
        for item in rules[goto].excludes:
            if item.goto and likeness(item.text, first.text) >= _SAME_SUBJECT:
                waiting.append([*path, (goto, item)])
    return []


def _over_budget(subject: _Subject, budgets: Budgets, measure: Measure) -> Iterator[Finding]:
    """Yields the lengths of a policy that are outside of their budgets."""
    policy = subject.policy
    first = next(iter(policy.summary), "id")
    for what, text, (least, most), key, option in (
        ("in full", policy.render(), budgets.full, "id", "--full"),
        ("as a summary", policy.render_summary(), budgets.summary, first, "--summary"),
    ):
        size = measure.count(text)
        if not least <= size <= most:
            is_short = size < least
            bound = f"under {least}" if is_short else f"over {most}"
            fault = f"{policy.id} has {size} {measure.unit} {what}, which is {bound}"
            remedy = f"{'say more' if is_short else 'shorten it'}, or give another {option}"
            yield subject.at_key("budget", key, (fault, remedy))


def _same_version(
    subject: _Subject, shown: Mapping[tuple[str, str], Set[str]]
) -> Iterator[Finding]:
    """Yields rules that differ from what models were shown under the same version of the pack."""
    for rule in subject.policy.rules:
        if shown.get((subject.policy.id, f"rule {rule.id}"), set()) - {rule.render()}:
            fault = (
                f"rule {rule.id} has another text in the warehouse under the same version "
                f"{subject.pack.version!r}"
            )
            said = (fault, "raise the version in style.md")
            yield subject.at_rule("version", rule, said)


def _alike_rules(pack: Pack, places: Places) -> Iterator[Finding]:
    """Yields pairs of rules that have one title in one policy, or one text."""
    rules = [(policy.id, rule) for policy in pack.policies.values() for rule in policy.rules]
    for (category, rule), (other, later) in itertools.combinations(rules, 2):
        same_policy = category == other
        if same_policy and rule.title.lower() == later.title.lower():
            fault = f"rules {rule.id} and {later.id} have the same title"
        elif _say_the_same(rule.text, later.text, same_policy=same_policy):
            fault = f"rules {rule.id} and {later.id} say nearly the same"
        else:
            continue
        remedy = "make one rule of them, or say what tells them apart"
        yield Finding(place=places.of_rule(later.id), kind="duplicate", text=fault, remedy=remedy)


def _alike_cases(pack: Pack, places: Places) -> Iterator[Finding]:
    """Yields pairs of cases that ask the same."""
    cases = [
        (policy.id, rule, case)
        for policy in pack.policies.values()
        for rule in policy.rules
        for case in rule.cases
    ]
    for (category, rule, case), (other, later, again) in itertools.combinations(cases, 2):
        if not _say_the_same(case.text, again.text, same_policy=category == other):
            continue
        fault = f"a case of rule {later.id} is nearly that of rule {rule.id}"
        remedy = "take one of them out"
        if None not in (case.outcome, again.outcome) and case.outcome != again.outcome:
            fault += f", which is {case.outcome} and not {again.outcome}"
            remedy = "decide which outcome is right"
        place = places.of_rule(later.id, f"Case: {again.text}")
        yield Finding(place=place, kind="duplicate", text=fault, remedy=remedy)


def _say_the_same(one: str, other: str, *, same_policy: bool) -> bool:
    """Returns True if two texts are nearly equal. Short texts must be equal, and of one policy:
    "translate is fine" may stand in several."""
    if min(len(one.split()), len(other.split())) < _LONG:
        return same_policy and one.lower() == other.lower()
    return likeness(one, other) >= _ALIKE
