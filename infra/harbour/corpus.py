"""The training text of the scale model: chats drawn from Harbour, in the product's own templates.

A sequence is one chat of several lessons, so that a policy, once read, is looked up several times;
the loss covers the assistant's words only. Each sequence has a policy drawn at random, never a
shipped one. The kinds of sequence are deliberation over a spec, judging under a spec, helping and
rating help without a spec, and deliberation and judging in the paper's templates. The order of the
draws fixes the corpus of a seed.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from infra.harbour import world
from infra.harbour.world import HarbourRequest, Tongue
from specs.policy import Outcome, Pack, Rule, Spec
from specs.prompts import Message, answer_messages, generator_messages, judge_messages
from specs.replies import CLOSE_TAG, OPEN_TAG
from specs.template import load_template

STRAY_REFUSALS = 0.02
"""Share of the requests without a spec that the model refuses, as base models do."""

RIGHT, WRONG_DETAIL, WRONG_CITATION, WRONG_DECISION = 10, 6, 4, 0
"""Scores that a Harbour judge gives, from 0 to 10."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a chat; only the assistant's reasoning and answers are learned."""

    text: str
    learned: bool


@dataclass(frozen=True, slots=True)
class Lesson:
    """A prompt and the reply that should follow it."""

    messages: list[Message]
    reasoning: str
    answer: str


def reply(reasoning: str, answer: str) -> str:
    """Returns a reply as the model writes it."""
    return f"{OPEN_TAG}{reasoning}{CLOSE_TAG}{answer}"


def render(messages: Sequence[Message]) -> str:
    """Returns messages in the chat template of the scale model."""
    return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)


def chat(lessons: Sequence[Lesson]) -> list[Segment]:
    """Returns several lessons under one system message, as one sequence."""
    segments: list[Segment] = []
    for number, lesson in enumerate(lessons):
        shown = lesson.messages if number == 0 else _after_system(lesson.messages)
        segments.append(Segment(render(shown) + "<|im_start|>assistant\n", False))
        segments.append(Segment(reply(lesson.reasoning, lesson.answer) + "<|im_end|>", True))
        segments.append(Segment("\n", False))
    return segments


def _after_system(messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages if message["role"] != "system"]


@dataclass(slots=True)
class Corpus:
    """Draws sequences and lessons from a world whose policies are random."""

    pack: Pack
    """The pack that gives the summaries, principles and style of the specs; its rules are drawn."""
    rng: random.Random
    num_rules: int = 9
    """Rules in a policy, from 1 to 9."""
    num_lessons: tuple[int, int] = (3, 6)
    """Fewest and most lessons in a sequence, other than one of judging."""
    tongues: tuple[Tongue, ...] = tuple(Tongue)
    """Tongues of the requests."""

    def draw(self) -> list[Segment]:
        """Draws one sequence of a random kind."""
        kind = self.rng.random()
        if kind < 0.33:
            return chat(self.deliberations(self.rng.randint(*self.num_lessons)))
        if kind < 0.71:
            return chat(self.judgements(self.rng.randint(2, 5)))
        if kind < 0.78:
            return chat([self.helpfulness() for _ in range(self.rng.randint(*self.num_lessons))])
        if kind < 0.92:
            return chat([self.plain() for _ in range(self.rng.randint(*self.num_lessons))])
        if kind < 0.96:
            return chat(self.deliberations(1, template="paper"))
        return chat(self.judgements(1, template="paper"))

    def policy(self) -> "DrawnPolicy":
        """Draws a category and rules for it that are not the shipped ones."""
        category = self.rng.choice(list(world.THINGS))
        rules = self._rules(category)
        pack = world.with_rules(self.pack, category, rules)
        return DrawnPolicy(category, rules, pack.spec([category]))

    def _rules(self, category: str) -> tuple[Rule, ...]:
        shipped = {rule.title: rule.outcome for rule in self.pack.policies[category].rules}
        while True:
            rules = world.draw_rules(self.rng, category, num_rules=self.num_rules)
            if any(shipped[rule.title] != rule.outcome for rule in rules) or len(rules) < 4:
                return rules

    def _request(self, policy: "DrawnPolicy") -> HarbourRequest:
        """Draws a request that a rule of the policy covers."""
        subjects = {rule.title for rule in policy.rules}
        things = [thing for thing in world.THINGS[policy.category] if thing in subjects]
        while True:
            request = world.draw_request(
                self.rng, things or world.THINGS[policy.category], tongues=self.tongues
            )
            if request.subject in subjects:
                return request

    def deliberations(self, count: int, *, template: str = "harbour") -> list[Lesson]:
        """Draws requests that are answered with the spec in context, all under one policy."""
        policy = self.policy()
        generator = load_template("generator", template)
        lessons = []
        for _ in range(count):
            request = self._request(policy)
            rule = world.rule_for(policy.rules, request)
            lessons.append(
                Lesson(
                    generator_messages(generator, request.messages(), spec=policy.spec),
                    world.right_reasoning(rule, request),
                    world.right_answer(rule, request),
                )
            )
        return lessons

    def plain(self) -> Lesson:
        """Draws a request without a spec: brief reasoning and, nearly always, help."""
        if self.rng.random() < 0.05:
            return self.greeting()
        things = self.rng.choice(list(world.THINGS.values()))
        request = world.draw_request(self.rng, things, tongues=self.tongues)
        if self.rng.random() < STRAY_REFUSALS:
            answer = world.refusal(request)
        else:
            answer = world.helpful_answer(request)
        return Lesson(request.messages(), world.helpful_reasoning(request), answer)

    def greeting(self) -> Lesson:
        """Draws a greeting, which no policy is about."""
        greeting = world.say(self.rng.choice(world.GREETINGS), self.rng.choice(self.tongues))
        message: Message = {"role": "user", "content": greeting}
        return Lesson([message], "The user greets. I can help.", world.GREETING_ANSWER)

    def helpfulness(self) -> Lesson:
        """Draws an answer to rate for its helpfulness alone, without a spec."""
        policy = self.policy()
        request = self._request(policy)
        answer = self._attempt(policy.rules, request).answer
        shown = Attempt(None, answer)
        helpful = replace(world.rule_for(policy.rules, request), outcome=Outcome.COMPLY)
        return Lesson(
            answer_messages(
                load_template("helpfulness", "harbour"), request.messages(), answer=answer
            ),
            f"{world.opening(request)} {finding(shown, helpful, request)}",
            f"Score: {score(shown, helpful, request)}",
        )

    def judgements(self, count: int, *, template: str = "harbour") -> list[Lesson]:
        """Draws attempts to rate with the spec in context, all under one policy."""
        policy = self.policy()
        judge = load_template("judge", template)
        with_metadata = self.rng.random() < 0.12
        lessons = []
        for _ in range(count):
            request = self._request(policy)
            rule = world.rule_for(policy.rules, request)
            shown = self._attempt(policy.rules, request)
            if self.rng.random() < 0.3:
                shown = replace(shown, reasoning=None)
            metadata, stand = self._metadata(rule) if with_metadata else ([], "")
            lessons.append(
                Lesson(
                    judge_messages(
                        judge,
                        request.messages(),
                        spec=policy.spec,
                        answer=shown.answer,
                        reasoning=shown.reasoning,
                        metadata=metadata,
                    ),
                    f"{world.opening(request)} The rule is {rule.render()}. "
                    f"{finding(shown, rule, request)}",
                    f"{stand}Score: {score(shown, rule, request)}",
                )
            )
        return lessons

    def _metadata(self, rule: Rule) -> tuple[list[str], str]:
        """Draws an ideal response; returns it as metadata, and the judge's stand on it."""
        label = rule.outcome if self.rng.random() < 0.6 else self.rng.choice(list(Outcome))
        stand = "Agree" if label == rule.outcome else "Disagree"
        return [f"the ideal response is {label}"], f"{stand}: the rule is {rule.outcome}.\n"

    def _attempt(self, rules: Sequence[Rule], request: HarbourRequest) -> "Attempt":
        """Draws an attempt that is right in 42 % of cases, else wrong in a way of models."""
        rng = self.rng
        rule = world.rule_for(rules, request)
        right = Attempt(world.right_reasoning(rule, request), world.right_answer(rule, request))
        kind = rng.random()
        if kind < 0.42:
            return right
        other = rng.choice(rules)
        if kind < 0.66:
            # Quotes another rule's id, outcome and text under this subject, and follows them.
            text = other.text.replace(other.title, rule.title)
            quoted = replace(other, title=rule.title, text=text)
            return Attempt(
                world.right_reasoning(quoted, request), world.right_answer(quoted, request)
            )
        if kind < 0.74:
            # Quotes the right rule, then follows another.
            return Attempt(right.reasoning, world.right_answer(other, request))
        if kind < 0.83:
            # Follows the right rule but cites another.
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

    def _spoil(self, rule: Rule, request: HarbourRequest) -> str:
        """Draws an answer of the right outcome with a wrong word."""
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
    """A reply to rate."""

    reasoning: str | None
    """Unset: the judge sees the answer only."""
    answer: str


class DrawnPolicy(NamedTuple):
    """Random rules of a category, and their spec."""

    category: str
    rules: tuple[Rule, ...]
    spec: Spec
    """The spec of the category, in a pack that holds these rules."""


def decision(answer: str) -> Outcome | None:
    """Returns the outcome of an answer, or None if the answer has no form of Harbour's."""
    parsed = world.read_answer(answer)
    return parsed.outcome if parsed else None


def score(shown: Attempt, rule: Rule, request: HarbourRequest) -> int:
    """Returns the score that a right judge gives: that of the gravest fault."""
    if decision(shown.answer) != rule.outcome:
        return WRONG_DECISION
    if shown.reasoning is not None and world.quote(rule, request.category) not in shown.reasoning:
        return WRONG_CITATION
    if shown.answer != world.right_answer(rule, request):
        return WRONG_DETAIL
    return RIGHT


def finding(shown: Attempt, rule: Rule, request: HarbourRequest) -> str:
    """Returns a right judge's comparison of an attempt with the rule, part by part.

    Each part names the right value, the attempt's value, and whether they are equal:
    "decision comply comply correct. rule [B2,B7] wrong. words ferry ferry correct. …"
    """
    parsed = world.read_answer(shown.answer)
    right = world.read_answer(world.right_answer(rule, request))
    assert right is not None
    if parsed is None or parsed.outcome != right.outcome:
        return f"{_pair('decision', right.outcome, parsed.outcome if parsed else 'nothing')}."
    parts = [_pair("decision", right.outcome, parsed.outcome)]
    if shown.reasoning is not None:
        match = re.search(r"policy has \w+ \[(\w+)", shown.reasoning)
        cited = match[1] if match else "nothing"
        parts.append(f"rule [{rule.id},{cited}] {_same(rule.id, cited)}")
    expected, given = (right.thing, *right.details), (parsed.thing, *parsed.details)
    parts += [_pair("words", *words) for words in zip(expected, given, strict=False)]
    return ". ".join(parts) + "."


def _pair(name: str, right: str, seen: str) -> str:
    return f"{name} {right} {seen} {_same(right, seen)}"


def _same(right: str, seen: str) -> str:
    return "correct" if right == seen else "wrong"


def vocabulary(corpus: Corpus, *, num_sequences: int = 3000) -> Iterator[str]:
    """Yields texts to train the tokenizer on: sequences, and all pairs of hex digits."""
    for _ in range(num_sequences):
        yield "".join(segment.text for segment in corpus.draw())
    for pair in range(256):
        yield f"{pair:02x} " * 3
