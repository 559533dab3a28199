"""An endpoint as the judge of RL: an engine's rewards, and None when it is not asked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.responses import Response

from tasks.data.judge import JudgeConfig
from tasks.engine.cluster import start_ray
from tasks.engine.endpoint import EndpointEngine
from tasks.engine.requests import EngineConfig
from tasks.training.judges import Judges
from tests.scripted_server import MODEL, ScriptedServer, completion, refusal, scripted
from tests.tasks.training.test_reward import CANARY, GOOD, PLAIN, SPEC, Bench, LocalJudge, reasoned
from warehouse.home import Home

KEY = "sk-very-secret-0123456789"


def fair(body: dict[str, Any], index: int) -> Response:
    """Nine for compliance, seven for help."""
    score = 7 if "You rate how far answers help" in body["messages"][0]["content"] else 9
    return completion(*[f"<think>I look.</think>It is so.\nScore: {score}"] * body.get("n", 1))


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted(fair) as running:
        yield running


def config(server: ScriptedServer, **options: Any) -> EngineConfig:
    endpoint = {"url": server.url, "retries": 0, "key_variable": "TOWN_KEY", **options}
    return EngineConfig.model_validate({"model": MODEL, "endpoint": endpoint})


def bench(server: ScriptedServer, **options: Any) -> Bench:
    return Bench([LocalJudge(EndpointEngine(config(server, **options), SecretStr(KEY)))])


def test_rewards_are_those_of_an_engine_that_says_the_same(server: ScriptedServer) -> None:
    asked = bench(server)
    assert asked.step(GOOD, GOOD, reasoned("No.")) == [0.9] * 3
    assert [body["n"] for body in server.bodies] == [4, 4], "equal answers are asked about once"
    assert CANARY not in str(server.bodies), "the reasoning stays hidden"
    assert bench(server).step(GOOD, kind="benign") == Bench([LocalJudge()]).step(
        GOOD, kind="benign"
    )


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda: refusal(401, f"bad key {KEY}"), r"refuses the key (401)"),
        (lambda: refusal(503, "loading"), "answers 503"),
        (lambda: completion("Score: 9", model="town-2"), "answers as model 'town-2'"),
    ],
)
def test_endpoint_that_cannot_judge_gives_none_and_ends_the_training(
    answer: Any, reason: str, server: ScriptedServer
) -> None:
    server.reset(lambda body, index: answer())
    asked = bench(server)
    rewards = [asked.step(GOOD, step=step) for step in range(PLAIN.failed_steps)]
    assert rewards == [[None]] * PLAIN.failed_steps, "never 0"
    [stopped] = asked.stop.reasons
    assert reason in stopped and KEY not in stopped + repr(asked.rows)


def test_budget_that_is_reached_in_training_gives_none(server: ScriptedServer) -> None:
    """A score that was paid for counts; one that was not asked for is no 0."""
    asked = bench(server, budget={"tokens": 100})
    assert asked.step(GOOD) == [None]
    assert "endpoint.budget.tokens is 100" in str(asked.rows[0].reason)
    assert server.bodies == []


@pytest.mark.slow
def test_judge_actors_ask_the_endpoint_with_its_key(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOWN_KEY", KEY)
    start_ray()
    judges = Judges.start(
        config(server).model_copy(update={"replicas": 2}),
        JudgeConfig(),
        {SPEC.id: SPEC},
        num_samples=PLAIN.samples,
        name=tmp_path.name,
        home=Home(str(tmp_path)),
    )
    try:
        assert Bench(judges.handles).step(GOOD, reasoned("No."), kind="ambiguous") == [0.8] * 2
    finally:
        judges.stop()
    assert set(server.keys) == {f"Bearer {KEY}"} and len(server.bodies) == 4
    assert list(tmp_path.glob("endpoints/*/*.json")), "what it spent is kept"
