"""Evaluations: what is asked, how it is graded, and what a second call still lacks."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from specs.prompts import Message
from tasks.engine import Request, Sampling, ScriptedEngine, failed
from tasks.evaluate import Evaluate, EvaluateConfig, GraderError, Suite, load_grader, pending
from tasks.sources import Candidate
from warehouse.catalog import ask, connect
from warehouse.shards import Home, write_shard
from warehouse.tables import EVALUATIONS, Evaluation

CONFIG = EvaluateConfig(grader="tests.test_evaluate:grade", samples=2)
RIGHT = "<think>Rule B1 covers it.</think>Take it."


def grade(
    messages: Sequence[Message], *, answer: str, cited: Sequence[str], ideal_response: str | None
) -> dict[str, float | None]:
    """Helped, and whether a rule was cited; null where nobody said what is right."""
    helped = None if ideal_response is None else float(answer == "Take it.")
    return {"helped": helped, "cited": float(bool(cited))}


def suite(*texts: str, ideal_response: str | None = "comply") -> Suite:
    return Suite.of(
        "asked",
        [
            Candidate(
                messages=[{"role": "user", "content": text}],
                categories=["boats"],
                ideal_response=ideal_response,
            )
            for text in texts
        ],
    )


def lacking(home: Home, wanted: Suite, config: EvaluateConfig = CONFIG) -> list[dict[str, Any]]:
    found = pending(connect(home), wanted, config=config, model="model@1", retries=1, wave_rows=3)
    units = [unit for wave in found for unit in wave.to_pylist()]
    assert len(units) == found.num_units
    return units


def made(
    home: Home, wanted: Suite, engine: Any, config: EvaluateConfig = CONFIG
) -> list[Evaluation]:
    """Evaluates what is lacking, and stores it."""
    work = Evaluate(
        config=config,
        suite=wanted.name,
        suite_version=wanted.version,
        model="model@1",
        checkpoint_id=None,
        all_rule_ids=("B1",),
        run_id="r",
    )
    rows = asyncio.run(work.make(lacking(home, wanted, config), engine))
    write_shard(home, EVALUATIONS, rows)
    return rows


def test_model_is_asked_the_bare_prompt_and_its_answer_is_graded(disk: Home) -> None:
    engine = ScriptedEngine(lambda request, index: RIGHT if index else "<think>No.</think>No.")
    wanted = suite("May I?", "And I?")
    rows = made(disk, wanted, engine)
    assert [request.messages for request in engine.requests] == [
        [{"role": "user", "content": text}]
        for text in sorted(("May I?", "And I?"), key=lambda text: suite(text).prompts[0].prompt_id)
    ]
    scores = [{score.name: score.value for score in row.scores} for row in rows]
    assert scores == [{"helped": 0.0, "cited": 0.0}, {"helped": 1.0, "cited": 1.0}] * 2
    assert lacking(disk, wanted) == []
    means = {
        row["score"]: row["mean"]
        for row in ask(connect(disk), "evaluation").to_pylist()
        if row["prompts"] == "benign"
    }
    assert means == {"helped": 0.5, "cited": 0.5}


def test_only_what_is_missing_is_asked_and_an_error_is_tried_again_once(disk: Home) -> None:
    class Failing(ScriptedEngine):
        async def generate(self, requests: Sequence[Request]) -> Any:
            return [[failed("error", "died")] * one.num_samples for one in requests]

    few, more = suite("May I?"), suite("May I?", "And I?")
    assert few.version != more.version
    for attempt in (0, 1):
        [unit] = lacking(disk, few)
        assert unit["attempts"] == [attempt] * 2
        rows = made(disk, few, Failing(lambda request, index: ""))
        assert [row.scores for row in rows] == [[], []]
    assert lacking(disk, few) == []
    assert len(lacking(disk, more)) == 2
    [row] = connect(disk).sql("SELECT count(*), max(attempt) FROM evaluations").fetchall()
    assert row == (2, 1)


def test_other_sampling_is_another_evaluation_and_is_not_mixed_in(disk: Home) -> None:
    wanted = suite("May I?", ideal_response=None)
    hot = CONFIG.model_copy(update={"sampling": Sampling(temperature=1.5)})
    made(disk, wanted, ScriptedEngine(lambda request, index: RIGHT))
    made(disk, wanted, ScriptedEngine(lambda request, index: "<think>No.</think>No."), hot)
    rows = ask(connect(disk), "evaluation").to_pylist()
    found = {
        (row["evaluating_id"] == hot.evaluating_id, row["score"]): (row["mean"], row["num_graded"])
        for row in rows
        if row["prompts"] == "ambiguous"
    }
    assert found == {
        (False, "helped"): (None, 0),
        (False, "cited"): (1.0, 2),
        (True, "helped"): (None, 0),
        (True, "cited"): (0.0, 2),
    }


@pytest.mark.parametrize("name", ["nowhere:grade", "tests.test_evaluate:nobody", "grade", "os:sep"])
def test_grader_that_is_none_is_refused_by_name(name: str) -> None:
    with pytest.raises(GraderError, match=f"no grader '{name}': give a function"):
        load_grader(name)
