"""Engines that are lost are asked to load again until Ray says that they are gone for good."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from tasks.engine import replicas
from tasks.engine.replicas import EnginesLost, Replicas


def handle(*starts: Exception | None) -> Any:
    """Returns an actor handle whose calls to load the model end so, one after the other."""
    outcomes: Iterator[Exception | None] = iter(starts)

    async def start() -> None:
        outcome = next(outcomes)
        if outcome:
            raise outcome

    async def generate(requests: list[Any]) -> list[Any]:
        return ["answer" for _ in requests]

    def method(call: Any) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=call))

    return SimpleNamespace(start=method(start), generate=method(generate))


def unavailable() -> Exception:
    return ActorUnavailableError("the connection is broken", b"0" * 16)


def ask(*handles: Any) -> Any:
    return asyncio.run(Replicas(handles).generate(["request"]))  # type: ignore[list-item]


def test_engine_whose_state_ray_does_not_know_yet_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replicas, "_SECONDS_TO_ASK_AGAIN", 0.0)
    assert ask(handle(unavailable(), unavailable(), None)) == ["answer"]
    assert ask(handle(ActorDiedError()), handle(unavailable(), None)) == ["answer"]


def test_engines_that_are_gone_for_good_or_never_come_back_end_the_stage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(EnginesLost, match="none is restarted"):
        ask(handle(ActorDiedError()), handle(ActorDiedError()))
    monkeypatch.setattr(replicas, "_SECONDS_TO_ASK_AGAIN", 0.0)
    monkeypatch.setattr(replicas, "_SECONDS_TO_RESTART", 0.0)
    with pytest.raises(EnginesLost, match="no engine restarted within 0 s"):
        ask(handle(*(unavailable() for _ in range(100))))
