"""Evaluations: who grades, what graders are shown, and that every vote is kept or asked again."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from infra.harbour.oracle import PACK
from specs.pack import load_pack
from specs.prompts import Message
from tasks.engine.requests import Request, ScriptedEngine
from tasks.evaluation.answer import RECORDED, AnswerConfig, Arm, store_recorded
from tasks.evaluation.grade import GradeWork, grade_by_function, pending
from tasks.evaluation.graders import GraderConfig, GraderError, grading_id, load_grader, make_rubric
from tasks.evaluation.suites import SuiteConfig, build_suite, store
from tests.rows import answer, case, jsonl
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.shards import list_shards, write_shard
from warehouse.tables import ANSWERS, CASES, EVALUATIONS, Evaluation, Turn

HARBOUR = load_pack(PACK)
BY_FUNCTION = GraderConfig(name="mine", function="tests.tasks.evaluation.test_grade:grade")
BY_POLICY = GraderConfig(name="judge", rubric="policy", samples=2)


def grade(
    messages: Sequence[Message], *, answer: str, target: str | None, **known: Any
) -> dict[str, float | None]:
    """Helped, and whether what was asked stood there bare."""
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


def lacking(home: Home, config: GraderConfig, name: str, *, version: str = "v") -> Any:
    connection = connect(home)
    [(model, answering_id)] = connection.sql(
        "SELECT DISTINCT model, answering_id FROM answers"
    ).fetchall()
    arms = {"model": [model], "answering_id": [answering_id], "samples": [3]}
    connection.register("arms_to_grade", pa.table(arms))
    specs = {"boats": HARBOUR.spec(["boats"]).id} if config.rubric == "policy" else {}
    return pending(
        connection,
        config,
        grading_id=name,
        spec_ids=specs,
        suite_versions=[version],
        retries=1,
        wave_rows=9,
    )


def voted(home: Home, config: GraderConfig, engine: ScriptedEngine) -> list[Evaluation]:
    rubric = make_rubric(config, HARBOUR, None)
    name = grading_id(config, model="judge@1", rubric=rubric)
    work = GradeWork(config=config, rubric=rubric, grading_id=name, model="judge@1", run_id="r")
    units = [unit for wave in lacking(home, config, name) for unit in wave.to_pylist()]
    rows = asyncio.run(work.make(units, engine))
    write_shard(home, EVALUATIONS, rows)
    return rows


def test_function_grades_the_prompt_before_the_attack_and_only_once(answered: Home) -> None:
    name = grading_id(BY_FUNCTION, model=None, rubric=None)
    graded = [
        grade_by_function(
            lacking(answered, BY_FUNCTION, name),
            BY_FUNCTION,
            grading_id=name,
            home=answered,
            run_id="r",
        )
        for _ in range(2)
    ]
    assert graded == [1, 0]
    [(answer_id, scores)] = (
        connect(answered).sql("SELECT answer_id, scores FROM evaluations").fetchall()
    )
    assert answer_id == "good"
    assert scores == [{"name": "helped", "value": 1.0}, {"name": "bare", "value": 1.0}]


def test_answer_that_was_lost_and_made_again_is_graded_anew(answered: Home) -> None:
    engine = ScriptedEngine(lambda request, index: "<think>Fine.</think>Good.\nScore: 9")
    voted(answered, BY_POLICY, engine)
    [lost] = list_shards(answered, ANSWERS)
    Path(lost).unlink()
    write_shard(answered, ANSWERS, [answer("good", case_id="c", answer="Do not.", text_id="new")])
    assert connect(answered).sql("FROM evaluations").fetchall() == []
    assert len(voted(answered, BY_POLICY, engine)) == 2
    assert "Do not." in str(engine.requests[-1].messages)
    assert voted(answered, BY_POLICY, engine) == []


def test_judge_sees_policy_and_bare_prompt_but_no_reasoning_unless_told(answered: Home) -> None:
    shown = {}
    for saw in ("answer", "answer+reasoning"):
        engine = ScriptedEngine(lambda request, index: "<think>Fine.</think>Good.\nScore: 9")
        voted(answered, BY_POLICY.model_copy(update={"saw": saw}), engine)
        [request] = engine.requests
        shown[saw] = str(request.messages)
    for text in shown.values():
        assert "# Policy boats" in text and "May I?" in text and "4d6179" not in text
    assert "A secret." not in shown["answer"] and "A secret." in shown["answer+reasoning"]


def test_every_vote_is_kept_and_one_that_cannot_be_read_is_asked_for_once_more(
    answered: Home,
) -> None:
    replies = {0: "<think>Fine.</think>Good.\nScore: 9", 1: "<think>Hm.</think>Quite good."}
    rows = voted(answered, BY_POLICY, ScriptedEngine(lambda request, index: replies[index]))
    assert [(row.status, [score.value for score in row.scores]) for row in rows] == [
        ("ok", [0.9]),
        ("no_verdict", [None]),
    ]
    assert {row.spec_id for row in rows} == {HARBOUR.spec(["boats"]).id}
    [again] = voted(answered, BY_POLICY, ScriptedEngine(lambda request, index: replies[1]))
    assert (again.sample_index, again.attempt) == (1, 1)
    assert voted(answered, BY_POLICY, ScriptedEngine(lambda request, index: "")) == []


def test_policy_that_a_thought_had_in_mind_is_asked_of_its_words_on_policies_alone(
    disk: Home,
) -> None:
    write_shard(disk, CASES, [case("c", suite_version="v", categories=["boats"])])
    thoughts = {
        "spoke": "The user wants a ferry. Our policy on boats has it.",
        "other": "The guidelines on fish say no.",
        "silent": "I can help.",
    }
    rows = [
        answer(name, case_id="c", reasoning=thought, sample_index=number)
        for number, (name, thought) in enumerate(thoughts.items())
    ]
    write_shard(disk, ANSWERS, rows)
    config = GraderConfig(name="reader", rubric="retrieval", saw="answer+reasoning")

    def script(request: Request, index: int) -> str:
        about = "boats" if "boats has it" in request.messages[-1]["content"] else "fish"
        return f"<think>Hm.</think>It is so.\nCategory: {about}"

    engine = ScriptedEngine(script)
    votes = voted(disk, config, engine)
    assert {row.answer_id: row.scores[0].value for row in votes} == {
        "spoke": 1.0,
        "other": 0.0,
        "silent": 0.0,
    }
    assert len(engine.requests) == 2
    assert all("wants a ferry" not in str(request.messages) for request in engine.requests)


def test_what_a_grader_is_shown_and_by_whom_it_is_judged_names_its_votes() -> None:
    def name(config: GraderConfig, model: str = "judge@1") -> str:
        return grading_id(config, model=model, rubric=make_rubric(config, HARBOUR, None))

    assert name(BY_POLICY) == name(BY_POLICY.model_copy(update={"samples": 4}))
    others = [
        name(BY_POLICY, model="judge@2"),
        name(BY_POLICY.model_copy(update={"saw": "answer+reasoning"})),
        name(GraderConfig(name="judge", rubric="strongreject", samples=2)),
    ]
    assert len({name(BY_POLICY), *others}) == 4


@pytest.mark.parametrize(
    "name", ["nowhere:grade", "tests.tasks.evaluation.test_grade:nobody", "grade", "os:sep"]
)
def test_grader_that_is_none_is_refused_by_name(name: str) -> None:
    with pytest.raises(GraderError, match=f"no grader '{name}': give a function"):
        load_grader(name)


def test_exact_match_grades_only_what_has_a_gold_answer() -> None:
    exact = load_grader("exact_match")
    assert exact([], answer="So it is 1,200.", target="#### 1200") == {"correct": 1.0}
    assert exact([], answer="So it is 12.", target=None) == {"correct": None}


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
    arm = Arm(name="recorded", model=RECORDED, checkpoint_id=None, seed=None, config=AnswerConfig())
    stored = [
        store_recorded(connect(disk), suite.recorded, arm=arm, pack=HARBOUR, home=disk, run_id="r")
        for _ in range(2)
    ]
    assert stored == [2, 0]
    gold = GraderConfig(name="people", function="gold")
    name = grading_id(gold, model=None, rubric=None)
    units = lacking(disk, gold, name, version=suite.version)
    grade_by_function(units, gold, grading_id=name, home=disk, run_id="r")
    found = connect(disk).sql(
        "SELECT a.answer, e.scores FROM evaluations e JOIN answers a USING (answer_id)"
    )
    scores = {row[0]: {one["name"]: one["value"] for one in row[1]} for row in found.fetchall()}
    assert scores == {
        "Sorry, no.": {"is_apology": 1.0, "is_judgement": 0.0},
        "Take it.": {"right": 0.0},
    }


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "has neither"),
        ({"function": "a:b", "rubric": "policy"}, "has both"),
        ({"function": "a:b", "samples": 2}, "would all be the same"),
    ],
)
def test_grader_of_a_recipe_that_cannot_be_is_refused(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        GraderConfig(name="mine", **options)
