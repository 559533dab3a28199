"""Writes documents about a Harbour policy, for `midtrain.function`.

The scale model knows no way to explain a policy: the town does, in words that the model has tokens
for, and always with the quote by which a reasoning names the rule.
"""

import random

from infra.harbour import world
from infra.harbour.world import HarbourRequest, Step
from specs.documents import Subject
from specs.policy import Rule

_EXPLANATIONS = (
    "{quote}",
    "The rule about the {title}: {quote}",
    "Who asks about the {title} must know the {category} policy. {quote}",
    "What is the rule about the {title}? {quote}",
    "It is so in the {category} policy: {text}. {quote}",
    "Follow the {category} policy. {quote} So {outcome}.",
    "{text}, so the answer is to {outcome}. {quote}",
    "The {category} policy says to {outcome} if the user asks about the {title}. {quote}",
)
"""Wordings of an explanation; a sample is the next one."""


def document(subject: Subject, *, sample_index: int) -> str:
    """Returns a document about a rule or a policy, the same for the same subject and sample."""
    category, rules = subject.policy.id, subject.policy.rules
    rng = random.Random(f"{subject.kind} {subject.spec.text} {sample_index}")
    if subject.kind == "summary":
        return " ".join(world.quote(rule, category) for rule in rng.sample(rules, len(rules)))
    [rule] = rules
    if subject.kind == "dialogue":
        return _dialogue(rule, category, rng)
    return _EXPLANATIONS[sample_index % len(_EXPLANATIONS)].format(
        quote=world.quote(rule, category),
        category=category,
        title=rule.title,
        outcome=rule.effect,
        text=rule.text,
    )


def _dialogue(rule: Rule, category: str, rng: random.Random) -> str:
    """Returns a request that a rule covers, and the words of one who goes by the rule."""
    is_translation = rule.title == world.TRANSLATE
    request = HarbourRequest(
        thing=rng.choice(world.THINGS[category]) if is_translation else rule.title,
        translate=is_translation,
        form=rng.randrange(len(world.USES) * len(world.TRANSLATIONS)),
    )
    return f"{request.text()} {world.right_reasoning([Step(request.thing, rule)], request)}"
