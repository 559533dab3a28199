"""What a model made of prompts under a pack → the rules that conflict, overlap, or never apply.

A model is asked each prompt several times under spec(category). The rule that its reasoning goes by
is the one that claims the prompt. Where two rules claim one prompt, or none does, the pack leaves
open what it should settle. Guide rules claim beside others: they decide nothing.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from specs.policy import Pack, Rule
from specs.reasoning import find_citations, find_decision

Kind = Literal["conflict", "gap", "against", "overlap", "idle"]
_ORDER: tuple[Kind, ...] = ("conflict", "gap", "against", "overlap", "idle")
LEAST_SHARE = 0.25
"""Share of a prompt's samples from which a rule claims it: one slip of four is no claim of two."""
_LEAST_PROMPTS = 5
"""Prompts that each rule of a category should have had before one without any is told. With three,
a rule of Harbour that nobody had asked about by chance was told."""
_NUM_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A prompt, what is known of it, and the reasoning of each sample."""

    category: str
    prompt: str
    expected: str | None = None
    """The outcome that the case, or the prompt's label, asks for; None if nobody said."""
    rule_id: str | None = None
    """The rule whose case the prompt is; None for a prompt of a source."""
    reasonings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """Something that the trials show to be open in a pack."""

    kind: Kind
    category: str
    rules: tuple[str, ...]
    weight: float
    """Prompts that show it, each by the share of its samples that does."""
    text: str
    remedy: str
    prompts: tuple[str, ...]
    """Those that show it best."""


_REMEDIES: Mapping[Kind, str] = {
    "conflict": "exclude them from one of the two by '- Excludes: … -> ID'",
    "gap": "write the rule that covers them, or widen one by '- Includes: …'",
    "against": "mend the rule, or the case or label",
    "overlap": "say in one of the two what the other covers, or make one rule of them",
    "idle": "widen it, or take it out",
}


@dataclass(frozen=True, slots=True)
class _Evidence:
    share: float
    prompt: str
    text: str


def find_doubts(pack: Pack, trials: Sequence[Trial]) -> list[Doubt]:
    """Returns what the trials show, the gravest kinds first and of one kind the weightiest."""
    evidence: dict[tuple[Kind, str, tuple[str, ...]], list[_Evidence]] = defaultdict(list)
    num_claims: Counter[str] = Counter()
    for trial in trials:
        shares = _shares(pack, trial)
        num_claims.update(name for name, share in shares.items() if name and share >= LEAST_SHARE)
        for kind, rules, shown in _shown(pack, trial, shares):
            evidence[kind, trial.category, rules].append(shown)
    doubts = [
        _doubt(kind, category, rules, shown) for (kind, category, rules), shown in evidence.items()
    ]
    doubts += _idle(pack, trials, num_claims)
    return sorted(doubts, key=lambda one: (_ORDER.index(one.kind), -one.weight, one.rules))


def _doubt(kind: Kind, category: str, rules: tuple[str, ...], shown: Sequence[_Evidence]) -> Doubt:
    ranked = sorted(shown, key=lambda one: (-one.share, one.prompt))
    return Doubt(
        kind=kind,
        category=category,
        rules=rules,
        weight=round(sum(one.share for one in ranked), 2),
        text=ranked[0].text,
        remedy=_REMEDIES[kind],
        prompts=tuple(one.prompt for one in ranked[:_NUM_SHOWN]),
    )


def _shares(pack: Pack, trial: Trial) -> dict[str | None, float]:
    """Returns the share of samples in which each rule claims the prompt; None is no rule."""
    rules = {rule.id: rule for rule in pack.policies[trial.category].rules}
    claims = Counter(
        name for reasoning in trial.reasonings for name in _claims(reasoning, rules, pack)
    )
    return {name: count / len(trial.reasonings) for name, count in claims.most_common()}


def _claims(reasoning: str, rules: dict[str, Rule], pack: Pack) -> Sequence[str | None]:
    """Returns the rules that reasoning goes by: each guide rule that it cites, and of the others
    the last whose outcome it decides on, else the last; None without one of the category."""
    cited = find_citations(reasoning, rule_ids=pack.rule_ids).known
    own = [name for name in cited if name in rules]
    decision = find_decision(reasoning)
    guides = [name for name in own if rules[name].outcome is None]
    deciding = [name for name in own if name not in guides]
    fitting = [name for name in deciding if rules[name].outcome == decision]
    return [*guides, *(fitting or deciding)[-1:]] or [None]


def _shown(
    pack: Pack, trial: Trial, shares: dict[str | None, float]
) -> Iterable[tuple[Kind, tuple[str, ...], _Evidence]]:
    """Yields what one prompt shows: (kind, rules, evidence)."""
    rules = {rule.id: rule for rule in pack.policies[trial.category].rules}
    deciding = {name for name in shares if name and rules[name].outcome}
    claiming = sorted(name for name in deciding if shares[name] >= LEAST_SHARE)
    for one, other in itertools.combinations(claiming, 2):
        first, second = rules[one], rules[other]
        kind: Kind = "overlap" if first.outcome == second.outcome else "conflict"
        text = f"rules {one} ({first.effect}) and {other} ({second.effect}) claim the same prompts"
        yield kind, (one, other), _Evidence(min(shares[one], shares[other]), trial.prompt, text)
    if shares.get(None, 0) >= 0.5:
        text = f"no rule of {trial.category} claims these prompts"
        yield "gap", (), _Evidence(shares[None], trial.prompt, text)
    decided = Counter(map(find_decision, trial.reasonings))
    outcome, count = decided.most_common(1)[0]
    if trial.expected and outcome and outcome != trial.expected and len(claiming) == 1:
        text = f"by rule {claiming[0]} the outcome is {outcome}, where {trial.expected} is expected"
        share = count / len(trial.reasonings)
        yield "against", (claiming[0],), _Evidence(share, trial.prompt, text)


def _idle(pack: Pack, trials: Sequence[Trial], num_claims: Counter[str]) -> list[Doubt]:
    """Returns the rules that claim no prompt, of categories with enough of them, or none of their
    own cases."""
    doubts = []
    for category, policy in pack.policies.items():
        asked = [trial for trial in trials if trial.category == category]
        for rule in policy.rules:
            own = [trial for trial in asked if trial.rule_id == rule.id]
            is_tried = own or len(asked) >= _LEAST_PROMPTS * len(policy.rules)
            if num_claims[rule.id] or not is_tried:
                continue
            text = f"rule {rule.id} claims none of {len(asked)} prompts"
            if own:
                text += f", and none of its own {len(own)} cases"
            doubts.append(
                Doubt(
                    kind="idle",
                    category=category,
                    rules=(rule.id,),
                    weight=float(len(asked)),
                    text=text,
                    remedy=_REMEDIES["idle"],
                    prompts=tuple(trial.prompt for trial in own[:_NUM_SHOWN]),
                )
            )
    return doubts
