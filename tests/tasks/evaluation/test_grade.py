"""Grades: what graders are shown, and that every grade is kept or asked for again."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest

from specs.adherence import load_adherence
from specs.prompts import Message
from specs.rubrics import GradingRequest
from tasks.engine.requests import Request, ScriptedEngine
from tasks.evaluation.answer import RECORDED, AnswerConfig, AnswerWork, Arm, store_recorded
from tasks.evaluation.grade import ArmAnswers, GradeWork, grade_without_engine
from tasks.evaluation.graders import (
    FunctionGrader,
    Grader,
    GraderConfig,
    RubricGrader,
    RubricName,
    make_rubric,
    versioned,
)
from tasks.evaluation.suites import SuiteConfig, build_suite, store
from tasks.paths import PROJECT
from tasks.stage import StageConfig
from tests.rows import answer, case, jsonl
from tests.tasks.evaluation.test_answer import HARBOUR
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.shards import list_shards, write_shard
from warehouse.tables import ANSWERS, CASES, EVALUATIONS, Evaluation, Turn

BY_FUNCTION = GraderConfig(name="mine", function="tests.tasks.evaluation.test_grade:grade")
BY_POLICY = GraderConfig(name="judge", rubric="policy", samples=2)


@versioned("helped, and asked bare", 1)
def grade(
    messages: Sequence[Message], *, answer: str, target: str | None, **known: Any
) -> dict[str, float | None]:
    """Returns whether the answer helped, and whether the prompt was shown bare."""
    helped = None if target is None else float(answer == target)
    return {"helped": helped, "bare": float(messages[-1]["content"] == "May I?")}


@pytest.fixture
def answered(disk: Home) -> Home:
    """Two answers to a case under an attack, of which one came to nothing."""
    attacked = case(
        "c",
        suite_version="v",
        attack="hex",
        target="Take it.",
        messages=[Turn(role="user", content="4d6179")],
        original=[Turn(role="user", content="May I?")],
    )
    write_shard(disk, CASES, [attacked])
    rows = [
        answer("good", case_id="c", answer="Take it.", reasoning="A secret."),
        answer("cut", case_id="c", answer="", status="truncated", sample_index=1),
    ]
    write_shard(disk, ANSWERS, rows)
    return disk


def ready(config: GraderConfig, *, model: str = "judge@1") -> Grader:
    if config.function:
        return FunctionGrader.of(config)
    return RubricGrader.of(config, rubric=make_rubric(config, HARBOUR, None), model=model)


def work_of(home: Home, config: GraderConfig, *, version: str = "v") -> GradeWork:
    """The work of a grader over all answers of the warehouse."""
    found = connect(home).sql("SELECT DISTINCT model, answering_id FROM answers").fetchall()
    return GradeWork(
        grader=ready(config),
        spec_ids={"boats": HARBOUR.spec(["boats"]).id},
        arms=tuple(
            ArmAnswers(model=model, answering_id=answering_id, samples=3)
            for model, answering_id in found
        ),
        suite_versions=(version,),
        stage=StageConfig(wave_rows=9),
        run_id="r",
    )


def graded(home: Home, config: GraderConfig, engine: ScriptedEngine) -> list[Evaluation]:
    work = work_of(home, config)
    pending = work.pending(connect(home))
    units = [work.unit(**row) for wave in pending for row in wave.to_pylist()]
    rows = asyncio.run(work.make(units, engine))
    write_shard(home, EVALUATIONS, rows)
    return rows


def scoring(text: str = "<think>Fine.</think>Good.\nScore: 9") -> ScriptedEngine:
    return ScriptedEngine(lambda request, index: text)


def test_function_grades_the_prompt_before_the_attack_and_only_once(answered: Home) -> None:
    work = work_of(answered, BY_FUNCTION)
    counts = [grade_without_engine(work, connect(answered), answered) for _ in range(2)]
    assert counts == [1, 0]
    [(answer_id, scores)] = (
        connect(answered).sql("SELECT answer_id, scores FROM evaluations").fetchall()
    )
    assert answer_id == "good"
    assert scores == [{"name": "helped", "value": 1.0}, {"name": "bare", "value": 1.0}]


def test_answer_that_was_lost_and_made_again_is_graded_anew(answered: Home) -> None:
    engine = scoring()
    graded(answered, BY_POLICY, engine)
    [lost] = list_shards(answered, ANSWERS)
    Path(lost).unlink()
    write_shard(answered, ANSWERS, [answer("good", case_id="c", answer="Do not.", text_id="new")])
    assert connect(answered).sql("FROM evaluations").fetchall() == []
    assert len(graded(answered, BY_POLICY, engine)) == 2
    assert "Do not." in str(engine.requests[-1].messages)
    assert graded(answered, BY_POLICY, engine) == []


def test_judge_sees_policy_and_bare_prompt_but_no_reasoning_unless_told(answered: Home) -> None:
    shown = {}
    for saw in ("answer", "answer+reasoning"):
        engine = scoring()
        graded(answered, BY_POLICY.model_copy(update={"saw": saw}), engine)
        [request] = engine.requests
        shown[saw] = str(request.messages)
    for text in shown.values():
        assert "# Policy boats" in text and "May I?" in text and "4d6179" not in text
    assert "A secret." not in shown["answer"] and "A secret." in shown["answer+reasoning"]


@pytest.mark.parametrize("rubric", get_args(RubricName))
@pytest.mark.parametrize("constrain", [True, False])
def test_a_grader_is_held_to_the_form_of_its_rubric_unless_the_recipe_sets_it_free(
    answered: Home, rubric: RubricName, constrain: bool
) -> None:
    saw: Any = "answer+reasoning" if rubric in ("retrieval", "honesty") else "answer"
    config = GraderConfig(name="it", rubric=rubric, saw=saw, constrain=constrain)
    of_rubric = make_rubric(config, HARBOUR, load_adherence(PROJECT / "specs" / "harbour"))
    grader = RubricGrader.of(config, rubric=of_rubric, model="judge@1")
    request = GradingRequest(conversation=[], answer="No.", reasoning="By policy, no.")
    question = grader.question(request, num_samples=3)
    assert question is not None and question.num_samples == 3
    held = of_rubric.form(request, max_tokens=config.sampling.max_tokens)
    assert question.form == (held if constrain else None)
    other = config.model_copy(update={"constrain": not constrain})
    assert RubricGrader.of(other, rubric=of_rubric, model="judge@1").grading_id != grader.grading_id


def test_every_grade_is_kept_and_one_that_cannot_be_read_is_asked_for_once_more(
    answered: Home,
) -> None:
    replies = {0: "<think>Fine.</think>Good.\nScore: 9", 1: "<think>Hm.</think>Quite good."}
    rows = graded(answered, BY_POLICY, ScriptedEngine(lambda request, index: replies[index]))
    assert [(row.status, [score.value for score in row.scores]) for row in rows] == [
        ("ok", [0.9]),
        ("no_verdict", [None]),
    ]
    assert {row.spec_id for row in rows} == {HARBOUR.spec(["boats"]).id}
    [again] = graded(answered, BY_POLICY, ScriptedEngine(lambda request, index: replies[1]))
    assert (again.sample_index, again.attempt) == (1, 1)
    assert graded(answered, BY_POLICY, ScriptedEngine(lambda request, index: "")) == []


def test_retrieval_is_graded_by_the_sentences_of_the_reasoning_that_speak_of_policies(
    disk: Home,
) -> None:
    write_shard(disk, CASES, [case("c", suite_version="v", categories=["boats"])])
    reasonings = {
        "spoke": "The user wants a ferry. Our policy on boats has it.",
        "other": "The guidelines on fish say no.",
        "silent": "I can help.",
    }
    rows = [
        answer(name, case_id="c", reasoning=reasoning, sample_index=number)
        for number, (name, reasoning) in enumerate(reasonings.items())
    ]
    write_shard(disk, ANSWERS, rows)
    config = GraderConfig(name="reader", rubric="retrieval", saw="answer+reasoning")

    def script(request: Request, index: int) -> str:
        about = "boats" if "boats has it" in request.messages[-1]["content"] else "fish"
        return f"<think>Hm.</think>It is so.\nCategory: {about}"

    engine = ScriptedEngine(script)
    grades = graded(disk, config, engine)
    assert {row.answer_id: row.scores[0].value for row in grades} == {
        "spoke": 1.0,
        "other": 0.0,
        "silent": 0.0,
    }
    assert len(engine.requests) == 2
    assert all("wants a ferry" not in str(request.messages) for request in engine.requests)


def test_answers_that_came_with_their_suite_are_graded_as_people_graded_them(
    tmp_path: Path, disk: Home
) -> None:
    chat = [{"role": "assistant", "content": "Sorry, no."}]
    said = {"apology": True, "judgement": False}
    rows = [
        {"prompt": "May I?", "completion": chat, "labels": said},
        {"prompt": "And I?", "completion": "Take it.", "labels": False},
    ]
    source = {"path": jsonl(tmp_path / "gold.jsonl", rows), "prompt": "prompt"}
    config = SuiteConfig.model_validate(
        {"name": "gold", "source": source, "answer": "completion", "gold": "labels"}
    )
    suite = build_suite(config, limit=None)
    store(connect(disk), suite, disk)
    work = AnswerWork(
        arm=Arm(
            name="recorded", model=RECORDED, checkpoint_id=None, seed=None, config=AnswerConfig()
        ),
        pack=HARBOUR,
        spec_ids={},
        suite_versions=(suite.version,),
        stage=StageConfig(),
        run_id="r",
    )
    stored = [store_recorded(connect(disk), disk, suite.recorded, work=work) for _ in range(2)]
    assert stored == [2, 0]
    gold = GraderConfig(name="people", function="gold")
    by_people = work_of(disk, gold, version=suite.version)
    grade_without_engine(by_people, connect(disk), disk)
    found = connect(disk).sql(
        "SELECT a.answer, e.scores FROM evaluations e JOIN answers a USING (answer_id)"
    )
    scores = {row[0]: {one["name"]: one["value"] for one in row[1]} for row in found.fetchall()}
    assert scores == {
        "Sorry, no.": {"is_apology": 1.0, "is_judgement": 0.0},
        "Take it.": {"right": 0.0},
    }
