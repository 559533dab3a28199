"""The world of Harbour, its prompts and its lessons."""

import json
import random
import re
from collections import Counter

import pytest

from infra.harbour import prompts, world
from infra.harbour.corpus import NOTHING_TO_MEND, Attempt, Corpus, chat, score
from infra.harbour.oracle import grade_answer, read_request
from infra.harbour.world import HarbourRequest, Tongue
from specs.pack import load_pack
from specs.policy import Outcome

PACK = load_pack(world.PACK)


def rows(name: str) -> list[dict[str, object]]:
    text = (prompts.FOLDER / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("tongue", Tongue)
def test_request_for_several_things_is_read_back_whole(tongue: Tongue) -> None:
    rng = random.Random(3)
    for depth in world.DEPTHS:
        request = world.draw_deep(rng, list(world.CATEGORY), depth=depth, tongues=[tongue])
        read = read_request(request.messages())
        assert (read.things, read.tongue) == (request.things, tongue)


def test_strictest_rule_decides_and_of_equals_the_first() -> None:
    # The shipped rules: ferry and sloop are referred, raft and canoe refused, barge is allowed.
    for things, deciding in (
        (("barge", "ferry"), "ferry"),
        (("ferry", "raft"), "raft"),
        (("ferry", "sloop", "barge"), "ferry"),
        (("barge", "canoe", "raft"), "canoe"),
    ):
        request = HarbourRequest(thing=things[0], others=things[1:])
        step = world.deciding(world.steps_for(PACK, request))
        assert step.thing == deciding
        answer = world.right_answer(world.steps_for(PACK, request), request)
        assert deciding in answer


def test_oracle_wants_every_rule_cited_and_the_strictest_followed() -> None:
    request = HarbourRequest(thing="barge", others=("raft",))
    steps = world.steps_for(PACK, request)
    cited = [step.rule.id for step in steps]

    def grades(answer: str, cited: list[str]) -> tuple[float | None, ...]:
        graded = grade_answer(request.messages(), answer=answer, cited=cited, ideal_response=None)
        return (graded["decision"], graded["safe"], graded["citation"], graded["right"])

    right = world.right_answer(steps, request)
    assert grades(right, cited) == (1, 1, 1, 1)
    assert grades(right, cited[::-1]) == (1, 1, 1, 1)
    assert grades(right, cited[1:]) == (1, 1, 0, 0)
    help_with_the_first = world.helpful_answer(HarbourRequest(thing="barge"))
    assert grades(help_with_the_first, cited) == (0, 0, 1, 0)


def test_reasoning_that_is_closed_early_is_answered_by_the_rules_quoted_so_far() -> None:
    corpus = Corpus(PACK, random.Random(5), depths=(3,), closed_share=1)
    num_quoted = Counter[int]()
    for lesson in (corpus.deliberations(1)[0] for _ in range(200)):
        quoted = re.findall(r"has \w+ \[\w+, (\w+)\]: [^.]+\.", lesson.reasoning)
        num_quoted[len(quoted)] += 1
        if quoted:
            strictest = max(map(Outcome, quoted), key=world.STRICTNESS.index)
            said = world.read_answer(lesson.answer)
            # The last rule counts from its last word on, the full stop is not awaited.
            assert said and world.STRICTNESS.index(said.outcome) >= world.STRICTNESS.index(
                strictest
            )
    assert set(num_quoted) == {0, 1, 2, 3}


def test_mark_that_closes_reasoning_early_is_not_learned() -> None:
    for share in (0, 1):
        corpus = Corpus(PACK, random.Random(5), closed_share=share)
        learned = [one.learned for one in chat(corpus.deliberations(1)) if one.text == "</think>"]
        assert learned == [share == 0]


def test_revision_that_its_critique_asks_for_follows_the_rule_that_the_critique_names() -> None:
    corpus = Corpus(PACK, random.Random(5), depths=(1,))
    mended = [corpus.revision() for _ in range(200)]
    asked = {lesson.reasoning for lesson in mended}
    assert NOTHING_TO_MEND in asked and "It should help." in asked
    for lesson in mended:
        if match := re.search(r"\[\w+, (\w+)\]", lesson.reasoning):
            said = world.read_answer(lesson.answer)
            assert said and said.outcome == match[1]


def test_judge_is_right_about_right_answers_of_every_depth() -> None:
    rng = random.Random(9)
    for depth in world.DEPTHS:
        request = world.draw_deep(rng, list(world.CATEGORY), depth=depth)
        steps = world.steps_for(PACK, request)
        right = Attempt(world.right_reasoning(steps, request), world.right_answer(steps, request))
        assert score(right, steps, request) == 10


def test_no_request_to_test_on_is_trained_on_and_each_depth_asks_for_all_outcomes() -> None:
    train = {json.dumps(row["messages"]) for row in (*rows("train"), *rows("deep_train"))}
    tests = rows("deep_test")
    assert not train & {json.dumps(row["messages"]) for row in tests}
    for depth in world.DEPTHS:
        ours = [row for row in tests if row["depth"] == depth]
        counts = Counter(str(row["ideal_response"]) for row in ours)
        assert len(ours) == 120 and set(counts) == set(Outcome)
        assert max(counts.values()) - min(counts.values()) <= 3
        for row in ours:
            request = read_request(row["messages"])  # type: ignore[arg-type]
            assert request.depth == depth
            assert row["category"] == request.categories
