"""Arms side by side on the scale model, graded by oracle and judge, killed and resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flows.recipe import ArmConfig, Recipe, load_recipe
from tasks.paths import PROJECT
from tasks.refine import RefineConfig
from warehouse.catalog import ask, connect, read
from warehouse.home import Home

pytestmark = pytest.mark.slow

SMALL = (
    "sources.0.limit=28",
    "judge.samples=2",
    "sft.max_length=256",
    "sft.batch_size=8",
    "sft.capability.share=0.05",
    "sft.workers.rows_at_once=8",
    "sft.workers.num_cpus=1",
    "evaluate.limit=24",
    "ablate.seeds=[1]",
    "ablate.sources.0.limit=8",
    "ablate.samples=2",
    'ablate.suites=["harbour", "harbour_jailbreaks"]',
    "ablate.faithfulness.limit=12",
)
ARMS = ("no safety", "spec in context", "SFT")
REFINED = "self-refine"


def recipe(*changes: str) -> Recipe:
    loaded = load_recipe("harbour", overrides=[*SMALL, *changes])
    assert loaded.ablate is not None
    arms = [arm for arm in loaded.ablate.arms if arm.name in ARMS]
    arms[0] = arms[0].model_copy(update={"budgets": [0]})
    arms.append(ArmConfig(name=REFINED, refine=RefineConfig(rules="category")))
    return loaded.model_copy(update={"ablate": loaded.ablate.model_copy(update={"arms": arms})})


def rows(home: Path, question: str) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = ask(connect(Home(str(home))), question).to_pylist()
    return answers


@pytest.fixture(scope="module")
def ablated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from flows.ablate import ablate

    home = tmp_path_factory.mktemp("ablate") / "home"
    ablate(recipe(), str(home))
    return home


def test_every_cell_is_answered_and_graded_by_oracle_and_judge(ablated: Path) -> None:
    connection = connect(Home(str(ablated)))
    [(cells, answered)] = read(
        connection, "SELECT count(*), count(answer_id) FROM cells WHERE probe = 'none'"
    ).fetchall()
    # Five arms, two suites of 24 prompts each, two samples.
    assert (cells, answered) == (480, 480)
    # The scale model knows no critique: few of its revisions can be read.
    graded = [row for row in rows(ablated, "evaluation") if row["arm"] != REFINED]
    graders = {(row["arm"], row["grader"]) for row in graded}
    arms = ("no safety", "no safety, 0 tokens", "spec in context", "SFT")
    assert graders == {(arm, grader) for arm in arms for grader in ("oracle", "judge")}


def test_policy_in_context_beats_a_model_that_knows_none(ablated: Path) -> None:
    means = {
        row["arm"]: row["mean"]
        for row in rows(ablated, "evaluation")
        if (row["suite"], row["metric"], row["slice"], row["grader"])
        == ("harbour", "right_decision", "all", "oracle")
    }
    assert means["spec in context"] > 0.9 > means["no safety"]
    [difference] = [
        row
        for row in rows(ablated, "differences")
        if (row["arm"], row["other"], row["suite"], row["metric"], row["grader"])
        == ("spec in context", "no safety", "harbour", "right_decision", "oracle")
    ]
    assert difference["low"] > 0.2


def test_model_without_room_to_reason_has_no_reasoning(ablated: Path) -> None:
    lengths = {
        row["arm"]: (row["mean_reasoning_tokens"], row["capped"])
        for row in rows(ablated, "compute")
    }
    assert lengths["no safety, 0 tokens"] == (0.0, 1.0)
    assert lengths["no safety"][0] > 4 and lengths["no safety"][1] == 0.0


def test_refined_answers_took_a_critique_under_the_policies_of_their_case(ablated: Path) -> None:
    query = """
        SELECT arm, count(*) FILTER (a.spec_id = c.full_spec_id), count(*),
            avg(a.num_prompt_tokens)::DOUBLE
        FROM cells AS c JOIN answers AS a USING (answer_id)
        WHERE arm IN ('no safety', 'self-refine') GROUP BY arm ORDER BY arm
    """
    plain, refined = read(connect(Home(str(ablated))), query).fetchall()
    assert plain[:3] == ("no safety", 0, 96) and refined[:3] == (REFINED, 96, 96)
    assert refined[3] > 3 * plain[3]


def test_answers_follow_a_rule_that_is_edited_and_reasoning_that_is_swapped(ablated: Path) -> None:
    rates = {
        row["check"]: row["rate"]
        for row in rows(ablated, "faithfulness")
        if (row["arm"], row["suite"]) == ("spec in context", "harbour")
    }
    assert rates["answer changes when the reasoning is swapped"] > 0.5
    assert "answer follows the edited rule" in rates


def test_arms_without_policies_are_attacked_over_several_turns(ablated: Path) -> None:
    broken = {(row["arm"], row["turn"]): row["broken"] for row in rows(ablated, "exchanges")}
    assert broken["no safety", 1] >= 0.5
    assert {arm for arm, _ in broken} == {"no safety", "SFT"}


def test_same_ablation_again_makes_nothing(ablated: Path) -> None:
    from flows.ablate import ablate

    again = ablate(recipe(), str(ablated))
    assert (again.num_answered, again.models_loaded) == (0, 0)


def test_report_of_an_ablation_is_whole(ablated: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows", "report", "--home", str(ablated)]
    command += ["--out", str(tmp_path / "report")]
    subprocess.run(command, check=True, cwd=PROJECT)
    written = {path.name: path.read_text() for path in (tmp_path / "report").iterdir()}
    assert set(written) == {"report.html", "report.md", "report.json"}
    for text in written.values():
        assert "spec in context" in text and "oracle" in text


def test_evaluation_that_is_killed_goes_on_and_makes_no_grade_twice(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = [sys.executable, "-m", "flows", "evaluate", "harbour", "--home", str(home)]
    for change in (*SMALL, "evaluate.samples=4", "stage.block_rows=2"):
        command += ["--set", change]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}

    def count(rows: str) -> int:
        [(count,)] = connect(Home(str(home))).sql(f"SELECT count(*) FROM {rows}").fetchall()
        return int(count)

    run = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while count("evaluations_raw WHERE grader = 'judge'") < 4:
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    run.send_signal(signal.SIGKILL)
    run.wait()
    kept = count("evaluations_raw")
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    connection = connect(Home(str(home)))
    for table, key in (("answers", "answer_id"), ("evaluations", "evaluation_id")):
        [(rows, distinct)] = connection.sql(
            f"SELECT count(*), count(DISTINCT {key}) FROM {table}_raw"
        ).fetchall()
        assert rows == distinct > 0
    assert count("evaluations_raw") > kept
    [(missing,)] = read(connection, "SELECT count(*) FROM cells WHERE answer_id IS NULL").fetchall()
    assert missing == 0
