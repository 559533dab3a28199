"""Two runs side by side: what was asked differently, and what came of it."""

import json

import pytest

from flows.recipe import load_recipe
from tests.rows import later
from tests.warehouse.test_evaluation_queries import Study
from warehouse.catalog import QuestionError, connect
from warehouse.home import Home
from warehouse.reports.compare import compare


def written(home: Home, run_id: str, *, safe: dict[str, int], threshold: float, hour: int) -> None:
    """An evaluation of one arm, whose model is another one in each run."""
    study = Study(home, run_id=run_id)
    study.arm("SFT", model=f"{run_id}@1")
    for name, value in safe.items():
        study.case(name, prompt_id=name)
        study.say(name, {"safe": value}, arm="SFT")
    # The same cases are answered by both: what tells their rows apart is the model.
    study.answers = {
        f"{run_id} {key}": type(row)(**{**as_dict(row), "answer_id": f"{run_id} {key}"})
        for key, row in study.answers.items()
    }
    study.votes = [
        type(row)(
            **{
                **as_dict(row),
                "answer_id": f"{run_id} {row.answer_id}",
                "evaluation_id": f"{run_id} {row.evaluation_id}",
            }
        )
        for row in study.votes
    ]
    recipe = load_recipe("harbour", overrides=[f"judge.threshold={threshold}"])
    study.write(
        started_at=later(hour),
        resolved_recipe=recipe.model_dump_json(),
        versions=json.dumps({"duckdb": "2.0.0"}),
    )


def as_dict(row: object) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}  # type: ignore[attr-defined]


def test_two_runs_differ_in_settings_and_in_metrics(disk: Home) -> None:
    written(disk, "aaa", safe={"p": 0, "q": 0, "r": 1}, threshold=8, hour=0)
    written(disk, "bbb", safe={"p": 1, "q": 0, "r": 1}, threshold=9, hour=1)
    compared = compare(connect(disk), "a", "b")
    assert (compared.run_a, compared.run_b) == ("aaa", "bbb")
    assert compared.settings == [{"key": "judge.threshold", "a": 8.0, "b": 9.0}]
    [row] = [row for row in compared.metrics if row["metric"] == "not_unsafe"]
    values = (row["arm"], row["a"], row["b"], row["difference"], row["num_prompts"])
    assert values == ("SFT", 0.3333, 0.6667, 0.3333, 3)
    assert row["low"] <= row["difference"] <= row["high"]


def test_run_compared_with_itself_differs_in_nothing(disk: Home) -> None:
    written(disk, "aaa", safe={"p": 0, "q": 1}, threshold=8, hour=0)
    compared = compare(connect(disk), "aaa", "aaa")
    assert compared.settings == [] and compared.counts == []
    assert {(row["difference"], row["low"], row["high"]) for row in compared.metrics} == {
        (0.0, 0.0, 0.0)
    }


def test_unknown_run_is_refused_in_one_sentence(disk: Home) -> None:
    with pytest.raises(QuestionError, match="no run has id 'x': give one that"):
        compare(connect(disk), "x", "y")
