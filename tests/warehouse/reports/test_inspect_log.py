"""Answers as logs of Inspect and as lines; what Inspect writes is read back with it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.rows import answer, case, evaluation, run
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.reports.inspect_log import InspectMissing, export, export_jsonl
from warehouse.shards import write_shard
from warehouse.tables import ANSWERS, CASES, EVALUATIONS, RUNS, Score, Turn

ATTACKED = [Turn(role="system", content="You help."), Turn(role="user", content="Decode: grEEl")]
BARE = [Turn(role="user", content="The ferry?")]
SCORES = {"decision": 1.0, "citation": None}


def judged(answer_id: str, number: int, rating: float | None) -> Any:
    return evaluation(
        answer_id,
        number,
        grader="judge",
        grading_id="judge",
        spec_id="s",
        status="no_verdict" if rating is None else "ok",
        scores=[Score(name="rating", value=rating)],
        rationale=f"Worth {rating}.",
    )


@pytest.fixture
def warehouse(disk: Home) -> Home:
    """One arm with two seeds; one case bare and attacked; the second seed answered nothing."""
    arm = {
        **{"position": 0, "arm": "SFT", "checkpoint_id": "k", "answering_id": "a"},
        **{"context": "none", "budget": None, "probe": "none"},
    }
    grader = {"saw": "answer", "threshold": 0.8, "num_votes": 2}
    plan = {
        "arms": [{**arm, "seed": 1, "model": "sft@1"}, {**arm, "seed": 2, "model": "sft@2"}],
        "suites": [{"suite": "harbour", "suite_version": "v"}],
        "graders": [
            {**grader, "grader": "judge", "grading_id": "judge", "reduce": "rating"},
            {**grader, "grader": "oracle", "grading_id": "oracle", "reduce": "mean"},
        ],
        "specs": [{"spec_key": "boats", "spec_id": "s"}],
        "rules": [],
        "samples": 1,
    }
    shared: dict[str, Any] = {"suite": "harbour", "suite_version": "v", "prompt_id": "p"}
    cases = [
        case("bare", **shared, attack="none", messages=BARE, original=BARE, target="skiff"),
        case("attacked", **shared, attack="rot_13", messages=ATTACKED, original=BARE),
    ]
    settings: dict[str, Any] = {"model": "sft@1", "answering_id": "a", "sample_index": 0}
    answers = [
        answer("a1", case_id="bare", **settings, finish_reason="stop", num_reasoning_tokens=5),
        answer("a2", case_id="attacked", **settings, status="truncated", finish_reason="length"),
    ]
    grades = [
        judged("a1", 0, 0.9),
        judged("a1", 1, 1.0),
        evaluation(
            "a1",
            0,
            grader="oracle",
            grading_id="oracle",
            scores=[Score(name=name, value=value) for name, value in SCORES.items()],
        ),
        evaluation(
            "a1",
            1,
            grader="oracle",
            grading_id="oracle",
            scores=[Score(name="decision", value=1.0), Score(name="citation", value=0.0)],
        ),
    ]
    evaluated = run(
        "e1",
        flow="evaluate",
        figures=json.dumps({"evaluation": plan}),
        git_commit="abc+",
        generation_id=None,
    )
    rows = {RUNS: [evaluated], CASES: cases, ANSWERS: answers, EVALUATIONS: grades}
    for table, shard in rows.items():
        write_shard(disk, table, shard)
    return disk


def test_lines_have_the_names_of_inspects_data_frame(warehouse: Home, tmp_path: Path) -> None:
    path = tmp_path / "new" / "samples.jsonl"
    assert export_jsonl(connect(warehouse), "e1", path) == 4
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    by_id = {(line["metadata_seed"], line["id"]): line for line in lines}
    bare = by_id[1, "p"]
    assert (bare["epoch"], bare["target"], bare["input"]) == (1, "skiff", "user:\nThe ferry?\n")
    assert (bare["metadata_attack"], bare["metadata_categories"]) == ("none", ["boats"])
    assert bare["score_judge"] == bare["score_judge_good"] == 1.0
    assert bare["score_oracle"] == {"citation": 0.0, "decision": 1.0}
    assert bare["score_oracle_citation"] == 0.0
    assert bare["error"] is None
    attacked = by_id[1, "p/rot_13"]
    assert attacked["input"] == "system:\nYou help.\n\n\nuser:\nDecode: grEEl\n"
    assert attacked["metadata_original"] == [{"role": "user", "content": "The ferry?"}]
    assert attacked["error"] == "truncated"
    assert attacked["score_judge"] is None
    assert by_id[2, "p"]["error"] == "missing"
    assert [child.name for child in path.parent.iterdir()] == ["samples.jsonl"]


def test_logs_without_inspect_say_how_to_install_it(warehouse: Home, tmp_path: Path) -> None:
    try:
        import inspect_ai  # noqa: F401
    except ImportError:
        with pytest.raises(InspectMissing, match="pip install inspect-ai"):
            export(connect(warehouse), "e1", tmp_path)
    else:
        pytest.skip("Inspect is installed")


@pytest.mark.parametrize("form", ["json", "eval"])
def test_inspect_reads_back_what_was_written(warehouse: Home, tmp_path: Path, form: Any) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="Inspect is not installed")
    folder = tmp_path / "new" / "logs"
    paths = export(connect(warehouse), "e1", folder, form)
    assert sorted(folder.iterdir()) == sorted(paths) and len(paths) == 2
    assert len(log.list_eval_logs(str(folder))) == 2
    first, second = (log.read_eval_log(str(path)) for path in paths)
    assert (first.eval.task, first.eval.model, first.eval.tags) == ("harbour", "sft@1", ["SFT"])
    assert (first.eval.task_args["seed"], second.eval.task_args["seed"]) == (1, 2)
    assert (first.eval.revision.commit, first.eval.revision.dirty) == ("abc", True)
    means = {score.name: score.metrics["mean"].value for score in first.results.scores}
    assert means == {"good": 1.0, "citation": 0.0, "decision": 1.0}
    bare, attacked = sorted(first.samples, key=lambda sample: str(sample.id))
    assert (bare.id, bare.epoch, bare.uuid, bare.target) == ("p", 1, "a1", "skiff")
    assert [(m.role, m.text) for m in attacked.input] == [
        ("system", "You help."),
        ("user", "Decode: grEEl"),
    ]
    [reasoning, text] = bare.output.message.content
    assert (reasoning.reasoning, text.text) == ("Rule B1 covers it.", "I will not.")
    assert bare.output.completion == "I will not."
    assert bare.output.usage.reasoning_tokens == 5
    assert bare.scores["judge"].value == 1.0
    assert bare.scores["judge"].explanation == "Worth 0.9.\n\nWorth 1.0."
    grades = bare.scores["judge"].metadata["grades"]
    assert [grade["scores"] for grade in grades] == [{"rating": 0.9}, {"rating": 1.0}]
    assert grades[0]["spec_id"] == "s"
    assert bare.scores["oracle"].value == {"citation": 0.0, "decision": 1.0}
    assert attacked.metadata["original"] == [{"role": "user", "content": "The ferry?"}]
    assert attacked.output.stop_reason == "max_tokens"
    assert math.isnan(attacked.scores["judge"].value)
    assert attacked.scores["judge"].reason == "no_response"
    assert [sample.error.message for sample in second.samples] == ["missing", "missing"]
