"""Answers that a model criticises and revises before they count."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from infra.harbour.world import PACK
from specs.pack import load_pack
from specs.policy import Pack
from tasks.engine.requests import Request, ScriptedEngine, failed
from tasks.evaluation.answer import AnswerConfig, AnswerUnit, AnswerWork, Arm
from tasks.refine import RefineConfig, Refiner
from tasks.stage import StageConfig
from warehouse.tables import Answer, content_id

HARBOUR = load_pack(PACK)


def arm(**refine: Any) -> Arm:
    config = AnswerConfig(samples=2)
    refiner = Refiner.of(
        RefineConfig(**refine), config.sampling, rules=HARBOUR.rules, templates="spec_first"
    )
    return Arm(name="a", model="m@1", checkpoint_id=None, seed=None, config=config, refiner=refiner)


def answered(
    asked: Arm, script: Callable[[str], str], *, pack: Pack = HARBOUR
) -> tuple[list[Answer], list[Request]]:
    engine = ScriptedEngine(lambda request, index: script(kind_of(request)))
    return answered_by(asked, engine, pack=pack)


def answered_by(
    asked: Arm,
    engine: ScriptedEngine,
    *,
    pack: Pack = HARBOUR,
    categories: Sequence[str] = ("boats",),
) -> tuple[list[Answer], list[Request]]:
    """The rows of one case of two samples, and all that the model was asked."""
    unit = AnswerUnit(
        block_key="+".join(categories),
        case_id="c",
        messages=[{"role": "user", "content": "How do I use the raft?"}],
        categories=list(categories),
        sanitised=True,
        sample_indices=[0, 1],
        attempts=[0, 0],
    )
    work = AnswerWork(
        arm=asked,
        pack=pack,
        spec_ids={"boats": HARBOUR.spec(["boats"]).id},
        suite_versions=("v",),
        stage=StageConfig(),
        run_id="r",
    )
    return asyncio.run(work.make([unit], engine)), engine.requests


def kind_of(request: Request) -> str:
    first = request.messages[0]["content"]
    kinds = {"You review answers": "critique", "You improve answers": "revision"}
    return next((kind for start, kind in kinds.items() if first.startswith(start)), "answer")


def reply(kind: str) -> str:
    return f"<think>Of {kind}.</think>This {kind} ends."


@pytest.mark.parametrize("rounds", [1, 2])
def test_last_revision_is_the_answer_and_all_tokens_count(rounds: int) -> None:
    rows, requests = answered(arm(rounds=rounds), reply)
    assert [kind_of(request) for request in requests] == (
        ["answer"]
        + ["critique"] * 2
        + ["revision"] * 2
        + (["critique"] * 2 + ["revision"] * 2) * (rounds - 1)
    )
    # The scripted engine counts words, and takes none of them for the answer's.
    each = len(reply("answer").split())
    for row in rows:
        assert (row.answer, row.status) == ("This revision ends.", "ok")
        assert row.num_reasoning_tokens == (1 + 2 * rounds) * each


def test_critique_sees_the_answer_and_the_policies_that_the_arm_says() -> None:
    for rules, num_shown in (("none", 0), ("drawn", 1), ("category", 9)):
        _, requests = answered(arm(rules=rules), reply)
        critique = next(one for one in requests if kind_of(one) == "critique")
        system, user = (message["content"] for message in critique.messages)
        shown = [rule.id for rule in HARBOUR.rules.values() if rule.render() in system]
        assert len(shown) == num_shown and all(rule.startswith("B") for rule in shown)
        assert "This answer ends." in user
        revision = next(one for one in requests if kind_of(one) == "revision")
        assert "This critique ends." in revision.messages[-1]["content"]
        assert not any("# Policy" in message["content"] for message in revision.messages)


def test_rules_are_drawn_anew_for_each_critique_and_alike_for_each_run() -> None:
    def drawn() -> list[str]:
        _, requests = answered(arm(rules="drawn", rounds=5), reply)
        shown = [one.messages[0]["content"] for one in requests if kind_of(one) == "critique"]
        return [text.split("\n")[1] for text in shown]

    assert len(set(drawn())) > 2 and drawn() == drawn()


@pytest.mark.parametrize("spoiled", ["critique", "revision"])
def test_step_that_cannot_be_read_is_told_and_gives_no_answer(spoiled: str) -> None:
    rows, _ = answered(arm(), lambda kind: "<think>On." if kind == spoiled else reply(kind))
    assert {row.status for row in rows} == {"unclosed"}
    assert all(row.reason == f"{spoiled} 1: unclosed" for row in rows)


def test_answer_that_cannot_be_read_is_not_criticised() -> None:
    rows, requests = answered(arm(), lambda kind: "<think>On.")
    assert [kind_of(request) for request in requests] == ["answer"]
    assert {row.status for row in rows} == {"unclosed"}


def test_ids_change_with_the_policies_that_a_critique_is_shown() -> None:
    edited = HARBOUR.with_other_outcome("B3")
    for rules, is_new in (("none", False), ("category", True), ("drawn", True)):
        first, other = (answered(arm(rules=rules), reply, pack=one)[0] for one in (HARBOUR, edited))
        assert (first[0].answer_id != other[0].answer_id) is is_new
        assert (first[0].spec_id == HARBOUR.spec(["boats"]).id) is is_new
    ways = [arm(), arm(rounds=2), arm(rules="category"), replace(arm(), refiner=None)]
    assert len({way.answering_id(HARBOUR) for way in ways}) == len(ways)


@pytest.mark.parametrize("step", ["critique", "revision"])
def test_step_that_an_endpoint_was_not_asked_for_is_left_to_a_later_run(step: str) -> None:
    class Spent(ScriptedEngine):
        async def generate(self, requests: Sequence[Request]) -> Any:
            outputs = await super().generate(requests)
            if requests and kind_of(requests[0]) == step:
                outputs[-1] = [failed("unasked", "the budget is spent")]
            return outputs

    rows, _ = answered_by(arm(), Spent(lambda request, index: reply(kind_of(request))))
    assert [(row.status, row.reason) for row in rows] == [
        ("ok", None),
        ("unasked", "the budget is spent"),
    ]


def test_answer_to_a_case_of_no_category_has_the_id_that_a_later_run_looks_for() -> None:
    asked = arm(rules="category")
    engine = ScriptedEngine(lambda request, index: reply(kind_of(request)))
    rows, _ = answered_by(asked, engine, categories=[])
    parts = ("c", asked.model, asked.answering_id(HARBOUR))
    expected = [content_id(*parts, index, HARBOUR.spec_for([]).id) for index in (0, 1)]
    assert [row.answer_id for row in rows] == expected
