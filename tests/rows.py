"""Rows as the tests write them: every field has a value, a test names those it is about."""

from datetime import UTC, datetime, timedelta
from typing import Any

from warehouse.tables import Completion, Judgement, PolicyText, Prompt, Run, Turn, content_id

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def later(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def prompt(text: str, **changes: Any) -> Prompt:
    row: dict[str, Any] = {
        "prompt_id": content_id(text),
        "categories": ["boats"],
        "ideal_response": "comply",
        "source": "hand",
        "split": "train",
        "language": "en",
        "transform": None,
        "metadata": [],
        "created_at": NOON,
        "messages": [Turn(role="user", content=text)],
    }
    return Prompt(**{**row, **changes})


def policy_text(spec_id: str, **changes: Any) -> PolicyText:
    row: dict[str, Any] = {
        "spec_id": spec_id,
        "pack": "harbour",
        "pack_version": "1",
        "categories": ["boats"],
        "detail": "full",
        "rule_ids": ["B1", "B2"],
        "created_at": NOON,
        "text": "the rules",
    }
    return PolicyText(**{**row, **changes})


def completion(completion_id: str, **changes: Any) -> Completion:
    row: dict[str, Any] = {
        "completion_id": completion_id,
        "prompt_id": "p",
        "spec_id": "s",
        "generation_id": "g",
        "sample_index": 0,
        "attempt": 0,
        "status": "ok",
        "reason": None,
        "finish_reason": "stop",
        "model": "writer@1",
        "num_prompt_tokens": 1,
        "num_cached_tokens": 0,
        "num_reasoning_tokens": 1,
        "num_answer_tokens": 1,
        "cited": ["B1"],
        "cited_unknown": [],
        "run_id": "r",
        "created_at": NOON,
        "answer": "Take the skiff.",
        "reasoning": "Rule B1 covers it.",
    }
    return Completion(**{**row, **changes})


def judgement(
    completion_id: str, sample_index: int, score: float | None, **changes: Any
) -> Judgement:
    row: dict[str, Any] = {
        "judgement_id": content_id(completion_id, "s", "j", sample_index),
        "completion_id": completion_id,
        "spec_id": "s",
        "judging_id": "j",
        "sample_index": sample_index,
        "attempt": 0,
        "status": "no_verdict" if score is None else "ok",
        "reason": None,
        "score": score,
        "agrees": None,
        "saw_reasoning": True,
        "model": "judge@1",
        "finish_reason": "stop",
        "num_prompt_tokens": 1,
        "num_cached_tokens": 0,
        "num_output_tokens": 1,
        "run_id": "r",
        "created_at": NOON,
        "rationale": f"Worth {score}.",
    }
    return Judgement(**{**row, **changes})


def run(run_id: str, **changes: Any) -> Run:
    row: dict[str, Any] = {
        "run_id": run_id,
        "flow": "refresh",
        "recipe": "harbour",
        "status": "completed",
        "attempt": 2,
        "generation_id": "g",
        "judging_id": "j",
        "spec_ids": ["s"],
        "num_samples": 4,
        "num_judgements": 2,
        "threshold": 8.0,
        "set_id": None,
        "started_at": NOON,
        "ended_at": None,
        "seconds": 1.0,
        "gpu_hours": 0.0,
        "git_commit": None,
        "versions": "{}",
        "resolved_recipe": "{}",
        "figures": "{}",
        "error": None,
    }
    return Run(**{**row, **changes})
