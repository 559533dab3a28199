"""The usage of an engine is counted after each step and can be read in a file."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.engine.usage import Usage
from tasks.engine.usage_counter import UsageCounter


def scheduled(queries: int, hits: int, running: int) -> Any:
    prefix_cache = SimpleNamespace(queries=queries, hits=hits)
    return SimpleNamespace(prefix_cache_stats=prefix_cache, num_running_reqs=running)


def generated(num_tokens: int) -> Any:
    return SimpleNamespace(num_generation_tokens=num_tokens)


def test_steps_add_up_and_either_part_may_be_missing() -> None:
    counter = UsageCounter()
    counter.note_start(2.5)
    counter.count(scheduled(100, 40, running=3), generated(7))
    counter.count(scheduled(10, 10, running=1), None)
    counter.count(None, generated(5))
    assert counter.usage == Usage(
        prompt_tokens=110,
        cached_tokens=50,
        output_tokens=12,
        steps=2,
        running=1,
        seconds_to_start=2.5,
    )


def test_only_a_new_token_is_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr("tasks.engine.usage_counter.time", clock)
    counter = UsageCounter()
    now = 10.0
    counter.count(scheduled(1, 0, running=1), generated(0))
    assert counter.seconds_without_progress == 10.0
    counter.count(None, generated(1))
    assert counter.seconds_without_progress == 0.0
    now = 15.0
    counter.note_progress()
    assert counter.seconds_without_progress == 0.0


def test_live_file_holds_the_usage_and_one_that_cannot_be_written_is_ignored(
    tmp_path: Path,
) -> None:
    path = tmp_path / "live" / "1.json"
    counter = UsageCounter(path)
    counter.count(None, generated(4))
    assert json.loads(path.read_text())["output_tokens"] == 4
    (tmp_path / "file").touch()
    UsageCounter(tmp_path / "file" / "1.json").count(None, generated(4))
