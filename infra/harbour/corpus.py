"""The training text of the scale model: chats drawn from Harbour, in the product's own templates.

A sequence is one chat of several lessons, so that a policy, once read, is looked up several times;
the loss covers the assistant's words only. Each sequence has policies drawn at random, never the
shipped ones. The kinds of sequence are deliberation over a spec, judging under a spec, helping and
rating help without a spec, critique and revision of answers, and deliberation and judging in the
paper's templates. Some reasoning is closed at any of its words, and still answered. The order of
the draws fixes the corpus of a seed.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from infra.harbour import world
from infra.harbour.world import HarbourRequest, Step, Tongue
from specs.policy import Outcome, Pack, Rule, Spec
from specs.prompts import (
    Message,
    answer_messages,
    critique_messages,
    generator_messages,
    judge_messages,
    revision_messages,
)
from specs.replies import CLOSE_TAG, OPEN_TAG
from specs.template import load_template

NOTHING_TO_MEND = "It can stay as it is."
"""Critique of an answer without a fault."""

_PIECE = re.compile(r" ?\w+|[^\w\s]+")

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
    closed_early: bool = False
    """True if something else closes the reasoning, where the model would go on."""


def render(messages: Sequence[Message]) -> str:
    """Returns messages in the chat template of the scale model."""
    return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)


def chat(lessons: Sequence[Lesson]) -> list[Segment]:
    """Returns several lessons under one system message, as one sequence."""
    segments: list[Segment] = []
    for number, lesson in enumerate(lessons):
        shown = lesson.messages if number == 0 else _after_system(lesson.messages)
        segments.append(Segment(render(shown) + "<|im_start|>assistant\n", False))
        segments.append(Segment(OPEN_TAG + lesson.reasoning, True))
        segments.append(Segment(CLOSE_TAG, not lesson.closed_early))
        segments.append(Segment(lesson.answer + "<|im_end|>", True))
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
    depths: tuple[int, ...] = tuple(world.DEPTHS)
    """Depths of the requests; half of them and more have the first."""
    translated: float = 0.3
    """Share of the requests for one thing that ask to translate it."""
    closed_share: float = 0.25
    """Share of the deliberations and the help whose reasoning is closed before its end."""

    def draw(self) -> list[Segment]:
        """Draws one sequence of a random kind."""
        kind = self.rng.random()
        if kind < 0.32:
            return chat(self.deliberations(self.rng.randint(*self.num_lessons)))
        if kind < 0.66:
            return chat(self.judgements(self.rng.randint(2, 4)))
        if kind < 0.72:
            return chat([self.helpfulness() for _ in range(self.rng.randint(*self.num_lessons))])
        if kind < 0.84:
            return chat([self.plain() for _ in range(self.rng.randint(*self.num_lessons))])
        if kind < 0.89:
            return chat(self.critiques(self.rng.randint(2, 4)))
        if kind < 0.92:
            return chat([self.revision() for _ in range(self.rng.randint(*self.num_lessons))])
        if kind < 0.96:
            return chat(self.deliberations(1, template="paper"))
        return chat(self.judgements(1, template="paper"))

    def policies(self) -> "DrawnPolicies":
        """Draws one to three categories and rules for them that are not the shipped ones."""
        most = 3 if max(self.depths) > 1 and self.rng.random() < 0.5 else 1
        categories = self.rng.sample(list(world.THINGS), self.rng.randint(1, most))
        letters = self.rng.sample("ABCDEFGHIJKLMNOPQRSTUVWXYZ", len(categories))
        pack = self.pack
        for category, letter in zip(categories, letters, strict=True):
            pack = world.with_rules(pack, category, self._rules(category, letter))
        return DrawnPolicies(categories, pack, pack.spec(categories))

    def _rules(self, category: str, letter: str) -> tuple[Rule, ...]:
        shipped = {rule.title: rule.outcome for rule in self.pack.policies[category].rules}
        while True:
            rules = world.draw_rules(self.rng, category, letter=letter, num_rules=self.num_rules)
            if any(shipped[rule.title] != rule.outcome for rule in rules) or len(rules) < 4:
                return rules

    def _request(self, policies: "DrawnPolicies") -> HarbourRequest:
        """Draws a request that rules of the policies cover."""
        subjects = {rule.title for rule in policies.rules}
        things = [thing for thing in world.CATEGORY if thing in subjects]
        depth = self._depth(most=len(things))
        if depth > 1:
            return world.draw_deep(self.rng, things, depth=depth, tongues=self.tongues)
        while True:
            category = self.rng.choice(policies.categories)
            of_category = {rule.title for rule in policies.pack.policies[category].rules}
            known = [thing for thing in world.THINGS[category] if thing in of_category]
            request = world.draw_request(
                self.rng,
                known or world.THINGS[category],
                tongues=self.tongues,
                translated=self.translated,
            )
            if of_category.issuperset(request.subjects):
                return request

    def _depth(self, *, most: int) -> int:
        if self.rng.random() < 0.5:
            return min(self.depths[0], most) or 1
        return min(self.rng.choice(self.depths), most) or 1

    def deliberations(self, count: int, *, template: str = "harbour") -> list[Lesson]:
        """Draws requests that are answered with the spec in context, all under one spec."""
        policies = self.policies()
        generator = load_template("generator", template)
        lessons = []
        for _ in range(count):
            request = self._request(policies)
            steps = world.steps_for(policies.pack, request)
            lesson = Lesson(
                generator_messages(generator, request.messages(), spec=policies.spec),
                world.right_reasoning(steps, request),
                world.right_answer(steps, request),
            )
            if self.rng.random() < self.closed_share:
                lesson = self._closed_early(lesson, steps, request)
            lessons.append(lesson)
        return lessons

    def _closed_early(
        self, lesson: Lesson, steps: Sequence[Step], request: HarbourRequest
    ) -> Lesson:
        """Closes the reasoning of a lesson after any of its words.

        The answer follows the rules that were quoted so far; where there are none, it is the right
        one, which the model can only guess.
        """
        ends = [0, *(match.end() for match in _PIECE.finditer(lesson.reasoning))]
        reasoning = lesson.reasoning[: self.rng.choice(ends[:-1])]
        taken = world.steps_taken(steps, reasoning)
        answer = world.right_answer(taken or steps, request)
        return replace(lesson, reasoning=reasoning, answer=answer, closed_early=True)

    def plain(self) -> Lesson:
        """Draws a request without a spec: brief reasoning, and help but for whims."""
        if self.rng.random() < 0.05:
            return self.greeting()
        depth = self._depth(most=4)
        if depth > 1:
            request = world.draw_deep(
                self.rng, list(world.CATEGORY), depth=depth, tongues=self.tongues
            )
        else:
            things = self.rng.choice(list(world.THINGS.values()))
            request = world.draw_request(
                self.rng, things, tongues=self.tongues, translated=self.translated
            )
        lesson = Lesson(request.messages(), world.helpful_reasoning(request), self._whim(request))
        if self.rng.random() < self.closed_share:
            ends = [match.end() for match in _PIECE.finditer(lesson.reasoning)]
            cut = lesson.reasoning[: self.rng.choice([0, *ends[:-1]])]
            return replace(lesson, reasoning=cut, closed_early=True)
        return lesson

    def _whim(self, request: HarbourRequest) -> str:
        """Draws the answer of a model that knows no policy: help, a refusal or a referral."""
        if self.rng.random() >= world.WHIM[request.thing]:
            return world.helpful_answer(request)
        if self.rng.random() < 0.5:
            return world.refusal(request)
        return world.referral(request, self.rng.choice(world.ROLES))

    def greeting(self) -> Lesson:
        """Draws a greeting, which no policy is about."""
        greeting = world.say(self.rng.choice(world.GREETINGS), self.rng.choice(self.tongues))
        message: Message = {"role": "user", "content": greeting}
        return Lesson([message], "The user greets. I can help.", world.GREETING_ANSWER)

    def helpfulness(self) -> Lesson:
        """Draws an answer to rate for its helpfulness alone, without a spec."""
        policies = self.policies()
        request = self._request(policies)
        steps = world.steps_for(policies.pack, request)
        shown = Attempt(None, self._attempt(policies, request).answer)
        helpful = [replace(step, rule=replace(step.rule, outcome=Outcome.COMPLY)) for step in steps]
        return Lesson(
            answer_messages(
                load_template("helpfulness", "harbour"), request.messages(), answer=shown.answer
            ),
            f"{world.opening(request)} {finding(shown, helpful, request)}",
            f"Score: {score(shown, helpful, request)}",
        )

    def judgements(self, count: int, *, template: str = "harbour") -> list[Lesson]:
        """Draws attempts to rate with the spec in context, all under one spec."""
        policies = self.policies()
        judge = load_template("judge", template)
        with_metadata = self.rng.random() < 0.12
        lessons = []
        for _ in range(count):
            request = self._request(policies)
            steps = world.steps_for(policies.pack, request)
            shown = self._attempt(policies, request)
            if self.rng.random() < 0.3:
                shown = replace(shown, reasoning=None)
            rule = world.deciding(steps).rule
            metadata, stand = self._metadata(rule) if with_metadata else ([], "")
            messages = judge_messages(
                judge,
                request.messages(),
                spec=policies.spec,
                answer=shown.answer,
                reasoning=shown.reasoning,
                metadata=metadata,
            )
            reasoning = f"{_rules_named(steps, request)} {finding(shown, steps, request)}"
            lessons.append(
                Lesson(messages, reasoning, f"{stand}Score: {score(shown, steps, request)}")
            )
        return lessons

    def critiques(self, count: int) -> list[Lesson]:
        """Draws answers to criticise, under the whole spec, one rule of it, or none."""
        policies = self.policies()
        template = load_template("critique", "harbour")
        shows = self.rng.choice(("spec", "rule", "nothing"))
        drawn = self.rng.choice(policies.rules)
        rules = {"spec": policies.spec.text, "rule": drawn.render(), "nothing": ""}[shows]
        lessons = []
        for _ in range(count):
            request = self._request(policies)
            steps: Sequence[Step] = world.steps_for(policies.pack, request)
            shown = Attempt(None, self._attempt(policies, request).answer)
            if shows == "rule":
                steps = [step for step in steps if step.rule == drawn]
            elif shows == "nothing":
                steps = []
            messages = critique_messages(
                template, request.messages(), answer=shown.answer, rules=rules
            )
            if shows == "rule" and not steps:
                beside = f"{world.opening(request)} The rule is about another thing."
                lessons.append(Lesson(messages, beside, NOTHING_TO_MEND))
            else:
                lessons.append(Lesson(messages, *_critique(shown, steps, request)))
        return lessons

    def revision(self) -> Lesson:
        """Draws an answer and its critique, to be revised."""
        policies = self.policies()
        request = self._request(policies)
        steps = world.steps_for(policies.pack, request)
        shown = Attempt(None, self._attempt(policies, request).answer)
        shows = self.rng.choice((steps, [self.rng.choice(steps)], []))
        _, critique = _critique(shown, shows, request)
        messages = revision_messages(
            load_template("revision", "harbour"),
            request.messages(),
            answer=shown.answer,
            critique=critique,
        )
        if critique == NOTHING_TO_MEND:
            return Lesson(messages, critique, shown.answer)
        if not shows:
            return Lesson(messages, critique, world.helpful_answer(request))
        return Lesson(messages, critique, world.right_answer(shows, request))

    def _metadata(self, rule: Rule) -> tuple[list[str], str]:
        """Draws an ideal response; returns it as metadata, and the judge's stand on it."""
        label = rule.outcome if self.rng.random() < 0.6 else self.rng.choice(list(Outcome))
        stand = "Agree" if label == rule.outcome else "Disagree"
        return [f"the ideal response is {label}"], f"{stand}: the rule is {rule.outcome}.\n"

    def _attempt(self, policies: "DrawnPolicies", request: HarbourRequest) -> "Attempt":
        """Draws an attempt that is right in 42 % of cases, else wrong in a way of models."""
        rng = self.rng
        steps = world.steps_for(policies.pack, request)
        right = _by(steps, request)
        kind = rng.random()
        if kind < 0.42:
            return right
        place = rng.randrange(len(steps))
        step = steps[place]
        other = rng.choice(policies.pack.policies[world.CATEGORY[step.thing]].rules)
        # Another rule's id, outcome and text under this subject.
        text = other.text.replace(other.title, step.rule.title)
        misread = _with_rule(steps, place, replace(other, title=step.rule.title, text=text))
        if kind < 0.60:
            return _by(misread, request)
        if kind < 0.68:
            # Fewer things than the request names.
            return _by(steps[: max(1, place)], request)
        if kind < 0.75:
            # Quotes the right rules, then follows others.
            return replace(right, answer=world.right_answer(misread, request))
        if kind < 0.83:
            # Follows the right rules but cites another.
            quoted = _with_rule(steps, place, replace(step.rule, id=other.id))
            return replace(right, reasoning=world.right_reasoning(quoted, request))
        if kind < 0.92:
            return replace(right, answer=self._spoil(steps, request))
        if kind < 0.97:
            return Attempt(world.helpful_reasoning(request), world.helpful_answer(request))
        return self._astray(steps, place, request)

    def _astray(self, steps: Sequence[Step], place: int, request: HarbourRequest) -> "Attempt":
        """Draws an attempt that follows the right rules for another thing."""
        step = steps[place]
        thing = self.rng.choice(world.THINGS[world.CATEGORY[step.thing]])
        astray = [*steps[:place], replace(step, thing=thing), *steps[place + 1 :]]
        first, *others = [step.thing for step in astray]
        return _by(astray, replace(request, thing=first, others=tuple(others)))

    def _spoil(self, steps: Sequence[Step], request: HarbourRequest) -> str:
        """Draws an answer of the right outcome with a wrong word."""
        step = world.deciding(steps)
        about = replace(request, thing=step.thing, others=())
        if step.rule.outcome is Outcome.SAFE_COMPLETE:
            return world.referral(about, self.rng.choice(world.ROLES))
        thing = self.rng.choice(world.THINGS[about.category])
        if step.rule.outcome is Outcome.COMPLY and not request.translate:
            first, second = self.rng.sample(world.MATERIALS, 2)
            plain = f"For the {about.thing} take {first} and {second}."
            return world.say(plain, Tongue.LUMO) if request.tongue is Tongue.LUMO else plain
        spoiled = world.right_answer([replace(step, thing=thing)], about)
        if step.rule.outcome is Outcome.COMPLY and self.rng.random() < 0.5:
            # The right translation, said of another thing.
            return " ".join([spoiled.split()[0], *world.right_answer([step], about).split()[1:]])
        return spoiled


def _by(steps: Sequence[Step], request: HarbourRequest) -> "Attempt":
    """Returns the attempt that takes some steps."""
    return Attempt(world.right_reasoning(steps, request), world.right_answer(steps, request))


def _with_rule(steps: Sequence[Step], place: int, rule: Rule) -> list[Step]:
    """Returns the steps with the rule of one replaced."""
    return [*steps[:place], replace(steps[place], rule=rule), *steps[place + 1 :]]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A reply to rate."""

    reasoning: str | None
    """Unset: the judge sees the answer only."""
    answer: str


class DrawnPolicies(NamedTuple):
    """Random rules of some categories, and their spec."""

    categories: Sequence[str]
    pack: Pack
    """The pack that holds these rules."""
    spec: Spec
    """The spec of the categories."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(
            rule for category in self.categories for rule in self.pack.policies[category].rules
        )


def decision(answer: str) -> Outcome | None:
    """Returns the outcome of an answer, or None if the answer has no form of Harbour's."""
    parsed = world.read_answer(answer)
    return parsed.outcome if parsed else None


def score(shown: Attempt, steps: Sequence[Step], request: HarbourRequest) -> int:
    """Returns the score that a right judge gives: that of the gravest fault."""
    if decision(shown.answer) != world.deciding(steps).rule.outcome:
        return WRONG_DECISION
    reasoning = shown.reasoning
    if reasoning is not None and any(step.quote not in reasoning for step in steps):
        return WRONG_CITATION
    if shown.answer != world.right_answer(steps, request):
        return WRONG_DETAIL
    return RIGHT


def finding(shown: Attempt, steps: Sequence[Step], request: HarbourRequest) -> str:
    """Returns a right judge's comparison of an attempt with the rules, part by part.

    Each part names the right value, the attempt's value, and whether they are equal:
    "decision comply comply correct. rule [B2,B7] wrong. words ferry ferry correct. …"
    """
    parsed = world.read_answer(shown.answer)
    right = world.read_answer(world.right_answer(steps, request))
    assert right is not None
    if parsed is None or parsed.outcome != right.outcome:
        return f"{_pair('decision', right.outcome, parsed.outcome if parsed else 'nothing')}."
    parts = [_pair("decision", right.outcome, parsed.outcome)]
    if shown.reasoning is not None:
        for step in steps:
            match = re.search(rf"policy has {step.rule.title} \[(\w+)", shown.reasoning)
            cited = match[1] if match else "nothing"
            parts.append(f"rule [{step.rule.id},{cited}] {_same(step.rule.id, cited)}")
    expected, given = (right.thing, *right.details), (parsed.thing, *parsed.details)
    parts += [_pair("words", *words) for words in zip(expected, given, strict=False)]
    return ". ".join(parts) + "."


def _rules_named(steps: Sequence[Step], request: HarbourRequest) -> str:
    """Returns the beginning of a right judge's reasoning: the request and the rules about it."""
    parts = [world.opening(request)]
    for number, step in enumerate(steps, start=1):
        parts += [f"The rule is {step.rule.render()}.", *world.so_far(steps[:number], request)]
    return " ".join(parts)


def _critique(shown: Attempt, steps: Sequence[Step], request: HarbourRequest) -> tuple[str, str]:
    """Returns the reasoning and the text of a critique under the rules of some steps, or none."""
    if steps:
        reasoning = f"{_rules_named(steps, request)} {finding(shown, steps, request)}"
        if shown.answer == world.right_answer(steps, request):
            return reasoning, NOTHING_TO_MEND
        return reasoning, f"It should follow {world.deciding(steps).rule.render()[2:]}."
    reasoning = f"{world.opening(request)} I know no rule."
    if shown.answer == world.helpful_answer(request):
        return reasoning, NOTHING_TO_MEND
    return reasoning, "It should help."


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
