"""The nightly refresh: what would be made, what changed, and what is held until it is approved."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from flows.recipe import Recipe, load_recipe
from tests.rows import completion, example, judgement, later, prompt, run, spec_text
from warehouse.catalog import ask, connect, read
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import COMPLETIONS, EXAMPLES, JUDGEMENTS, PROMPTS, RUNS, SPECS


@pytest.fixture
def judged(disk: Home) -> Home:
    """Two refreshes of one prompt each; the second one's judge has drifted."""
    write_shard(disk, SPECS, [spec_text("s")])
    for number, (name, alarm) in enumerate((("early", None), ("late", "acceptance is 1.000"))):
        write_shard(disk, PROMPTS, [prompt(name, prompt_id=name)])
        write_shard(disk, COMPLETIONS, [completion(name, prompt_id=name)])
        votes = [judgement(name, index, 9.0, prompt_id=name, run_id=name) for index in range(2)]
        write_shard(disk, JUDGEMENTS, votes)
        figures = json.dumps({"drift": {"alarm": alarm}} if alarm else {})
        made = run(
            name,
            started_at=later(number),
            figures=figures,
            resolved_recipe=plain().model_dump_json(),
        )
        write_shard(disk, RUNS, [made])
    return disk


def plain(**changes: Any) -> Recipe:
    return load_recipe("harbour").model_copy(update=changes)


def verdicts(home: Home) -> dict[str, str]:
    found = read(connect(home), "SELECT completion_id, verdict FROM verdicts").fetchall()
    return dict(found)


def test_what_a_drifted_judge_said_is_held_until_it_is_approved(judged: Home) -> None:
    assert verdicts(judged) == {"early": "accepted", "late": "held"}
    funnel = {
        row["stage"]: row["left_behind"] for row in ask(connect(judged), "funnel").to_pylist()
    }
    assert funnel["accepted"] == "1 held for approval"
    approved = run("ok", flow="approve", generation_id=None, figures='{"approved": "late"}')
    write_shard(judged, RUNS, [approved])
    assert verdicts(judged) == {"early": "accepted", "late": "accepted"}


def test_what_a_killed_refresh_judged_is_held_by_the_one_that_looked_at_it(judged: Home) -> None:
    write_shard(judged, PROMPTS, [prompt("dead", prompt_id="dead")])
    write_shard(judged, COMPLETIONS, [completion("dead", prompt_id="dead")])
    of_dead = {"prompt_id": "dead", "run_id": "dead"}
    votes = [judgement("dead", index, 9.0, **of_dead) for index in (0, 1)]
    write_shard(judged, JUDGEMENTS, votes)
    alarm = {"alarm": "acceptance is 1.000", "runs": ["dead", "looked"]}
    shared = {"resolved_recipe": plain().model_dump_json()}
    dead = run("dead", started_at=later(3), status="running", **shared)
    looked = run("looked", started_at=later(4), figures=json.dumps({"drift": alarm}), **shared)
    write_shard(judged, RUNS, [dead, looked])
    assert verdicts(judged)["dead"] == "held"
    watched = {row["run_id"]: row["watched"] for row in ask(connect(judged), "drift").to_pylist()}
    assert watched == {"early": False, "late": True, "dead": True}
    write_shard(
        judged, RUNS, [run("ok", flow="approve", figures='{"approved": "looked"}', **shared)]
    )
    assert verdicts(judged)["dead"] == "accepted"


def test_drift_is_told_by_refresh(judged: Home) -> None:
    rows = ask(connect(judged), "drift").to_pylist()
    assert [
        (row["run_id"], row["num_judged"], row["acceptance"], row["alarm"]) for row in rows
    ] == [
        ("early", 1, 1.0, None),
        ("late", 1, 1.0, "acceptance is 1.000"),
    ]


@pytest.mark.slow
def test_approving_takes_the_start_of_an_id_and_refuses_what_is_not_held(judged: Home) -> None:
    from flows.nightly import HeldError, approve

    with pytest.raises(HeldError, match="no held run has an id with 'early'; held are late"):
        approve("early", judged.root)
    assert approve("la", judged.root) == "late"
    assert verdicts(judged)["late"] == "accepted"


def trained(run_id: str, minutes: float, recipe: Recipe, **checkpoints: str) -> Any:
    figures = json.dumps({"checkpoints": list(checkpoints.values())})
    resolved = recipe.model_dump_json()
    return run(
        run_id,
        flow="train",
        generation_id=None,
        started_at=later(minutes),
        figures=figures,
        resolved_recipe=resolved,
    )


def test_examples_are_counted_from_those_of_the_recipes_last_training(disk: Home) -> None:
    from flows.nightly import trained_on

    recipe = plain()
    for number, count in enumerate((2, 3, 5)):
        name = f"set{number}"
        write_shard(disk, EXAMPLES, [example(f"{name} {i}", set_id=name) for i in range(count)])
        left_out = example(f"{name} left", set_id=name, status="left_out")
        write_shard(disk, EXAMPLES, [left_out])
        refreshed = run(name, started_at=later(10 * number), set_id=name)
        write_shard(disk, RUNS, [refreshed])
    assert trained_on(connect(disk), recipe) == 0
    write_shard(disk, RUNS, [trained("early", 5, recipe, sft="a", rl="b")])
    assert trained_on(connect(disk), recipe) == 2
    write_shard(disk, RUNS, [trained("late", 15, recipe, sft="c", rl="d")])
    assert trained_on(connect(disk), recipe) == 3
    # An ablation leaves a stage out, and a recipe that has changed was never trained.
    arm = recipe.model_copy(update={"rl": None})
    write_shard(disk, RUNS, [trained("ablation", 25, arm, sft="c")])
    assert trained_on(connect(disk), recipe) == 3
    assert trained_on(connect(disk), recipe.model_copy(update={"sft": None})) == 0


def refreshed(run_id: str, alarm: str | None) -> Any:
    from flows.run import Refreshed, RunFigures
    from tasks.data.drift import Drift

    figures = RunFigures(drift=Drift((), alarm))
    return Refreshed(run_id, "home", [], "set", 0, figures, 0)


@pytest.mark.parametrize(
    ("answers", "last", "taken"),
    [
        ([True, True], "third", [("first", "0"), ("second", "1")]),
        ([True, False], "second", [("first", "0")]),
        ([True, None], "second", [("first", "0")]),
        ([None], "first", []),
    ],
)
def test_every_alarm_of_a_night_is_asked_about(
    answers: list[bool | None], last: str, taken: list[tuple[str, str]]
) -> None:
    from flows.nightly import Approval, alarm_of, settle

    nights = iter([refreshed("second", "spread is 5.0"), refreshed("third", None)])
    said = iter(answers)
    numbers = iter("012")
    seen: list[tuple[str, str]] = []

    def ask(held: Any) -> Approval | None:
        answer = next(said)
        return None if answer is None else Approval(approve=answer, note=next(numbers))

    def take(held: Any, note: str) -> Any:
        seen.append((held.run_id, note))
        return next(nights)

    done = settle(refreshed("first", "acceptance is 1.000"), ask, take)
    assert (done.run_id, seen) == (last, taken)
    assert (alarm_of(done) is None) == (last == "third")


def test_the_form_of_an_approval_explains_its_fields() -> None:
    from flows.nightly import Approval

    asked = Approval.with_initial_data(description="The judge has drifted.")
    fields = asked.model_json_schema()["properties"]
    assert set(fields) == {"approve", "note"}
    assert all(field["description"] for field in fields.values())


def test_a_recipe_that_is_served_is_offered_with_its_overrides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.deployments import deployments, known_recipes

    own = tmp_path / "own"
    own.mkdir()
    (own / "a.toml").touch()
    monkeypatch.setenv("PRECEPT_RECIPES", str(own))
    monkeypatch.setenv("PRECEPT_RECIPE", "/elsewhere/served.toml")
    shipped = known_recipes()
    assert shipped[0] == str(own / "a.toml") and shipped[-1] == "/elsewhere/served.toml"
    monkeypatch.setenv("PRECEPT_RECIPE", "harbour")
    assert known_recipes() == shipped[:-1]
    for one in deployments(load_recipe("harbour"), "harbour", ["judge.samples=8"]):
        assert one.parameters == {"recipe": "harbour", "overrides": ["judge.samples=8"]}


@pytest.mark.parametrize("when_busy", ["cancel", "queue"])
def test_a_run_that_must_not_wait_is_cancelled_at_its_start_alone(
    disk: Home, monkeypatch: pytest.MonkeyPatch, when_busy: str
) -> None:
    from flows.deployments import _run
    from flows.lock import BusyError, lock

    def cancel(why: str) -> None:
        raise SystemExit(why)

    monkeypatch.setattr("flows.deployments._cancel", cancel)
    monkeypatch.setenv("PRECEPT_HOME", disk.url)
    monkeypatch.setenv("PRECEPT_WAIT_SECONDS", "0")
    changes = [f"nightly.when_busy='{when_busy}'", "nightly.hours=0.00005"]
    done: list[str] = []

    def work(recipe: Recipe) -> None:
        done.append(recipe.name)
        with lock(disk):
            raise BusyError("another run has come between")

    with lock(disk):
        if when_busy == "cancel":
            with pytest.raises(SystemExit, match="is writing to"):
                _run(work, "harbour", changes)
            assert not done
        else:
            with pytest.raises((BusyError, TimeoutError)):
                _run(work, "harbour", changes)
    with pytest.raises(BusyError, match="come between"):
        _run(work, "harbour", changes)


@pytest.mark.slow
def test_a_run_that_is_cancelled_says_why(disk: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.client.orchestration import get_client
    from prefect.exceptions import Abort

    from flows.deployments import align
    from flows.lock import lock

    monkeypatch.setenv("PRECEPT_HOME", disk.url)
    monkeypatch.setenv("PRECEPT_WAIT_SECONDS", "0")
    with lock(disk), pytest.raises(Abort):
        align("harbour", ("nightly.when_busy='cancel'",))
    with get_client(sync_client=True) as client:
        wanted = {"flow_runs": {"state": {"type": {"any_": ["CANCELLED"]}}}}
        [found] = client.request("POST", "/flow_runs/filter", json=wanted).json()
    assert f"is writing to {disk.url}" in found["state"]["message"]


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_ended_unless_it_limits_itself(
    disk: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.deployments import _run

    monkeypatch.setenv("PRECEPT_HOME", disk.url)
    monkeypatch.setenv("PRECEPT_WAIT_SECONDS", "0")
    changes = ["nightly.hours=0.00001"]
    with pytest.raises(TimeoutError):
        _run(lambda _: time.sleep(5), "harbour", changes)
    assert _run(lambda _: time.sleep(0.1), "harbour", changes, limits_itself=True) is None


def test_whatever_a_run_fails_with_after_its_time_is_told_as_its_time_limit() -> None:
    from flows.time_limit import told_as_timeout

    with pytest.raises(TimeoutError, match=r"nightly\.hours"), told_as_timeout(0.00001):
        time.sleep(0.1)
        raise ValueError("Task run is not set")
    with pytest.raises(ValueError, match="not set"), told_as_timeout(1):
        raise ValueError("Task run is not set")


def test_every_flow_is_offered_with_a_form_that_explains_itself() -> None:
    from flows.deployments import deployments

    offered = deployments(load_recipe("harbour"), "harbour")
    assert [one.name for one in offered] == [
        "refresh-nightly",
        "align",
        "train",
        "evaluate",
        "ablate",
    ]
    for one in offered:
        schema = one._parameter_openapi_schema
        assert one.description and one.concurrency_limit == 1
        assert "harbour" in schema.properties["recipe"]["enum"]
        assert all(field.get("description") for field in schema.properties.values())
    [schedule] = offered[0].schedules or []
    assert schedule.schedule.cron == "0 2 * * *"


@pytest.mark.slow
def test_a_night_that_takes_too_long_is_ended_and_leaves_the_warehouse_free(disk: Home) -> None:
    # An import that was cut short could not be made again in this process.
    import ray.data  # noqa: F401

    from flows.lock import lock
    from flows.nightly import nightly

    wanted = load_recipe("harbour", overrides=["nightly.hours=0.0005", "sources.0.limit=14"])
    with pytest.raises(TimeoutError):
        nightly(wanted, disk.url)
    assert connect(disk).sql("SELECT flow, status FROM runs").fetchall() == [("refresh", "failed")]
    with lock(disk):
        pass


def test_change_report_tells_cost_by_the_recipes_price(judged: Home) -> None:
    from flows.nightly import Before, change_report
    from flows.run import Refreshed, RunFigures

    done = Refreshed("late", judged.url, [], "set", 0, RunFigures(), 0)
    before = Before(frozenset({"s"}), 0)
    text = change_report(judged, plain(gpu_hour_price=2.5), done, before)
    assert "GPU-hours, 0.00 at 2.5 a GPU-hour" in text
    assert "a GPU-hour" not in change_report(judged, plain(), done, before)


def test_change_report_tells_of_each_judge_of_a_jury(judged: Home) -> None:
    from flows.nightly import Before, change_report
    from flows.run import Refreshed, RunFigures
    from tasks.stage import StageFigures

    figures = RunFigures(
        stages={"judge a@1": StageFigures(num_rows=3, statuses={"ok": 3})},
        silent_judges={"b@1": "no answer"},
    )
    done = Refreshed("late", judged.url, [], "set", 0, figures, 0)
    text = change_report(judged, plain(), done, Before(frozenset(), 0))
    assert "- judge a@1: 3 rows (ok 3)" in text and "- judge: 0 rows" not in text
    assert "- b@1 could not be asked: no answer" in text


def test_change_report_says_why_a_night_came_to_no_example(judged: Home) -> None:
    from flows.nightly import Before, change_report
    from flows.run import Refreshed, RunFigures

    sentence = "No example came of 3 rows: they are too long; shorten them."
    done = Refreshed("late", judged.url, [], "set", 0, RunFigures(), 0, sentence)
    assert f"- {sentence}\n" in change_report(judged, plain(), done, Before(frozenset(), 0))


@pytest.mark.slow
def test_the_server_schedules_the_nights() -> None:
    from prefect.client.orchestration import get_client

    from flows.deployments import deployments

    night_id = deployments(load_recipe("harbour"), "harbour", overrides=[])[0].apply()
    wanted = {"deployments": {"id": {"any_": [str(night_id)]}}}
    deadline = time.monotonic() + 90
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            found = client.request("POST", "/flow_runs/filter", json=wanted).json()
            if found:
                break
            time.sleep(1)
        client.request("DELETE", f"/deployments/{night_id}")
    assert {one["state"]["type"] for one in found} == {"SCHEDULED"}
    assert {one["expected_start_time"][11:16] for one in found} == {"02:00"}
