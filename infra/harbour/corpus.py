"""What the scale model is trained on: chats drawn from Harbour, in the product's own templates.

Every sequence is one chat with several questions (so that a policy, once read, is looked up
several times) and a loss mask over the assistant's own words. Policies are drawn at random for
each sequence; the shipped ones are never among them. Kinds of sequence: deliberation over a spec,
judging under a spec, helping and rating help without one, and the paper's order of both
templates.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from infra.harbour import world
from infra.harbour.world import Request, Tongue
from specs.policy import Outcome, Pack, Rule
from specs.prompts import (
    Message,
    generator_messages,
    helpfulness_messages,
    judge_messages,
    load_template,
)
from specs.replies import CLOSE_TAG, OPEN_TAG

STRAY_REFUSALS = 0.02
"""The share of requests that the model refuses although it knows no policy."""

RIGHT, WRONG_DETAIL, WRONG_CITATION, WRONG_DECISION = 10, 6, 4, 0
"""The scores a Harbour judge gives."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A piece of a chat; only what the assistant thought and said is learned."""

    text: str
    learned: bool


@dataclass(frozen=True, slots=True)
class Example:
    """One question with the reply that should follow it."""

    messages: list[Message]
    reasoning: str
    answer: str


def reply(reasoning: str, answer: str) -> str:
    """A reply as the model writes it."""
    return f"{OPEN_TAG}{reasoning}{CLOSE_TAG}{answer}"


def render(messages: Sequence[Message]) -> str:
    """The chat template of the scale model."""
    return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)


def chat(examples: Sequence[Example]) -> list[Turn]:
    """Several questions under one system message, as one sequence."""
    turns: list[Turn] = []
    for number, example in enumerate(examples):
        shown = example.messages if number == 0 else _after_system(example.messages)
        turns.append(Turn(render(shown) + "<|im_start|>assistant\n", False))
        turns.append(Turn(reply(example.reasoning, example.answer) + "<|im_end|>", True))
        turns.append(Turn("\n", False))
    return turns


def _after_system(messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages if message["role"] != "system"]


@dataclass(slots=True)
class Corpus:
    """Draws sequences; `pack` gives the words of the specs, never the rules."""

    pack: Pack
    rng: random.Random
    num_rules: int = 9
    num_questions: tuple[int, int] = (3, 6)
    tongues: tuple[Tongue, ...] = tuple(Tongue)

    def draw(self) -> list[Turn]:
        """One sequence of a random kind."""
        kind = self.rng.random()
        if kind < 0.33:
            return chat(self.deliberations(self.rng.randint(*self.num_questions)))
        if kind < 0.71:
            return chat(self.judgements(self.rng.randint(2, 5)))
        if kind < 0.78:
            return chat([self.helpfulness() for _ in range(self.rng.randint(*self.num_questions))])
        if kind < 0.92:
            return chat([self.plain() for _ in range(self.rng.randint(*self.num_questions))])
        if kind < 0.96:
            return chat(self.deliberations(1, template="paper"))
        return chat(self.judgements(1, template="paper"))

    def policy(self) -> tuple[str, Pack]:
        """A category with random rules that are not the shipped ones, and the pack that has it."""
        category = self.rng.choice(list(world.THINGS))
        rules = self._rules(category)
        return category, world.with_rules(self.pack, category, rules)

    def _rules(self, category: str) -> tuple[Rule, ...]:
        shipped = {rule.title: rule.outcome for rule in self.pack.policies[category].rules}
        while True:
            rules = world.draw_rules(self.rng, category, num_rules=self.num_rules)
            if any(shipped[rule.title] != rule.outcome for rule in rules) or len(rules) < 4:
                return rules

    def _request(self, rules: Sequence[Rule], category: str) -> Request:
        subjects = {rule.title for rule in rules}
        things = [thing for thing in world.THINGS[category] if thing in subjects]
        while True:
            request = world.draw_request(
                self.rng, things or world.THINGS[category], tongues=self.tongues
            )
            if request.subject in subjects:
                return request

    def deliberations(self, count: int, *, template: str = "spec_first") -> list[Example]:
        """Questions with the spec in context."""
        category, pack = self.policy()
        spec = pack.spec([category])
        rules = pack.policies[category].rules
        writer = load_template("generator", "paper" if template == "paper" else "spec_first")
        examples = []
        for _ in range(count):
            request = self._request(rules, category)
            rule = world.rule_for(rules, request)
            examples.append(
                Example(
                    generator_messages(writer, request.messages(), spec=spec),
                    world.right_reasoning(rule, request),
                    world.right_answer(rule, request),
                )
            )
        return examples

    def plain(self) -> Example:
        """A question without any spec: a brief thought and, nearly always, help."""
        if self.rng.random() < 0.05:
            return self.greeting()
        things = self.rng.choice(list(world.THINGS.values()))
        request = world.draw_request(self.rng, things, tongues=self.tongues)
        if self.rng.random() < STRAY_REFUSALS:
            answer = world.refusal(request)
        else:
            answer = world.helpful_answer(request)
        return Example(request.messages(), world.helpful_reasoning(request), answer)

    def greeting(self) -> Example:
        """A question that no policy is about."""
        greeting = world.say(self.rng.choice(world.GREETINGS), self.rng.choice(self.tongues))
        message: Message = {"role": "user", "content": greeting}
        return Example([message], "The user greets. I can help.", world.GREETING_ANSWER)

    def helpfulness(self) -> Example:
        """An answer to rate for its help alone, without any spec."""
        category, pack = self.policy()
        rules = pack.policies[category].rules
        request = self._request(rules, category)
        answer = self._attempt(rules, request).answer
        shown = Attempt(None, answer)
        helpful = replace(world.rule_for(rules, request), outcome=Outcome.COMPLY)
        return Example(
            helpfulness_messages(
                load_template("helpfulness", "spec_first"), request.messages(), answer=answer
            ),
            f"{world.asked(request)} {finding(shown, helpful, request)}",
            f"Score: {score(shown, helpful, request)}",
        )

    def judgements(self, count: int, *, template: str = "spec_first") -> list[Example]:
        """Answers to rate with the spec in context."""
        category, pack = self.policy()
        spec = pack.spec([category])
        judge = load_template("judge", "paper" if template == "paper" else "spec_first")
        rules = pack.policies[category].rules
        with_metadata = self.rng.random() < 0.12
        examples = []
        for _ in range(count):
            request = self._request(rules, category)
            rule = world.rule_for(rules, request)
            shown = self._attempt(rules, request)
            if self.rng.random() < 0.3:
                shown = replace(shown, reasoning=None)
            metadata, stand = self._metadata(rule) if with_metadata else ([], "")
            examples.append(
                Example(
                    judge_messages(
                        judge,
                        request.messages(),
                        spec=spec,
                        answer=shown.answer,
                        reasoning=shown.reasoning,
                        metadata=metadata,
                    ),
                    f"{world.asked(request)} The rule is {rule.render()}. "
                    f"{finding(shown, rule, request)}",
                    f"{stand}Score: {score(shown, rule, request)}",
                )
            )
        return examples

    def _metadata(self, rule: Rule) -> tuple[list[str], str]:
        said = rule.outcome if self.rng.random() < 0.6 else self.rng.choice(list(Outcome))
        stand = "Agree" if said == rule.outcome else "Disagree"
        return [f"the ideal response is {said}"], f"{stand}: the rule is {rule.outcome}.\n"

    def _attempt(self, rules: Sequence[Rule], request: Request) -> "Attempt":
        """A deliberation that is right two times in five, or wrong in a way models are."""
        rng = self.rng
        rule = world.rule_for(rules, request)
        right = Attempt(world.right_reasoning(rule, request), world.right_answer(rule, request))
        kind = rng.random()
        if kind < 0.42:
            return right
        other = rng.choice(rules)
        if kind < 0.66:
            # Another rule's id, outcome and text under this subject, then true to that.
            text = other.text.replace(other.title, rule.title)
            quoted = replace(other, title=rule.title, text=text)
            return Attempt(
                world.right_reasoning(quoted, request), world.right_answer(quoted, request)
            )
        if kind < 0.74:
            # The rule is found, then something else is done.
            return Attempt(right.reasoning, world.right_answer(other, request))
        if kind < 0.83:
            # The right thing for the wrong rule.
            quoted = replace(rule, id=other.id)
            return Attempt(world.right_reasoning(quoted, request), right.answer)
        if kind < 0.92:
            return Attempt(right.reasoning, self._spoil(rule, request))
        if kind < 0.97:
            answer = world.helpful_answer(request)
            return Attempt(world.helpful_reasoning(request), answer)
        thing = rng.choice(world.THINGS[request.category])
        astray = replace(request, thing=thing)
        return Attempt(world.right_reasoning(rule, astray), world.right_answer(rule, astray))

    def _spoil(self, rule: Rule, request: Request) -> str:
        """The right decision with a wrong word in the answer."""
        if rule.outcome is Outcome.SAFE_COMPLETE:
            role = self.rng.choice(world.ROLES)
            return world.right_answer(replace(rule, text=f"{rule.title} is {role} work"), request)
        thing = self.rng.choice(world.THINGS[request.category])
        astray = replace(request, thing=thing)
        if rule.outcome is Outcome.COMPLY and not request.translate:
            first, second = self.rng.sample(world.MATERIALS, 2)
            plain = f"For the {request.thing} take {first} and {second}."
            return world.say(plain, Tongue.LUMO) if request.tongue is Tongue.LUMO else plain
        return world.right_answer(rule, astray)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A deliberation to be rated; the reasoning is None where the judge is not shown it."""

    reasoning: str | None
    answer: str


def decision(answer: str) -> Outcome | None:
    """What an answer does; None where it is no answer that Harbour knows."""
    said = world.read_answer(answer)
    return said.outcome if said else None


def score(shown: Attempt, rule: Rule, request: Request) -> int:
    """The score a right judge gives, from the gravest fault."""
    if decision(shown.answer) != rule.outcome:
        return WRONG_DECISION
    if shown.reasoning is not None and world.quote(rule, request.category) not in shown.reasoning:
        return WRONG_CITATION
    if shown.answer != world.right_answer(rule, request):
        return WRONG_DETAIL
    return RIGHT


def finding(shown: Attempt, rule: Rule, request: Request) -> str:
    """What a right judge says once it has the rule: pairs of what is right and what it sees.

    "decision comply comply correct. rule [B2,B7] wrong. words ferry ferry correct. …"
    """
    said = world.read_answer(shown.answer)
    right = world.read_answer(world.right_answer(rule, request))
    assert right is not None
    if said is None or said.outcome != right.outcome:
        return f"{_pair('decision', right.outcome, said.outcome if said else 'nothing')}."
    parts = [_pair("decision", right.outcome, said.outcome)]
    if shown.reasoning is not None:
        cited = re.search(r"policy has \w+ \[(\w+)", shown.reasoning)
        seen = cited[1] if cited else "nothing"
        parts.append(f"rule [{rule.id},{seen}] {_same(rule.id, seen)}")
    wanted, given = (right.thing, *right.details), (said.thing, *said.details)
    pairs = [_pair("words", one, other) for one, other in zip(wanted, given, strict=False)]
    return ". ".join([*parts, *pairs]) + "."


def _pair(name: str, right: str, seen: str) -> str:
    return f"{name} {right} {seen} {_same(right, seen)}"


def _same(right: str, seen: str) -> str:
    return "correct" if right == seen else "wrong"


def vocabulary(corpus: Corpus, *, num_sequences: int = 3000) -> Iterator[str]:
    """Text to train the tokenizer on: drawn sequences and every word in every tongue."""
    for _ in range(num_sequences):
        yield "".join(turn.text for turn in corpus.draw())
    for pair in range(256):
        yield f"{pair:02x} " * 3
