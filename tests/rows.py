"""Rows as the tests write them: every field has a value, a test names those it is about.

Rows of the warehouse, and rows of the files that sources read.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks.data.sources import SourceConfig
from tasks.paths import PROJECT
from warehouse.tables import (
    Answer,
    AssistantTurn,
    Case,
    Completion,
    Draft,
    Evaluation,
    Example,
    Judgement,
    Prompt,
    Review,
    Rollout,
    Run,
    Score,
    SpecText,
    Turn,
    content_id,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DATA = PROJECT.parent / "shared" / "data"


def plain(turns: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns turns as files spell them: without the keys that have no value."""
    return [{key: value for key, value in turn.items() if value is not None} for turn in turns]


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


def spec_text(spec_id: str, **changes: Any) -> SpecText:
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
    return SpecText(**{**row, **changes})


def completion(completion_id: str, **changes: Any) -> Completion:
    row: dict[str, Any] = {
        "completion_id": completion_id,
        "text_id": completion_id,
        "prompt_id": "p",
        "spec_id": "s",
        "generation_id": "g",
        "sample_index": 0,
        "attempt": 0,
        "status": "ok",
        "reason": None,
        "finish_reason": "stop",
        "model": "generator@1",
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
    completion_id: str, sample_index: int, score: float | None, /, **changes: Any
) -> Judgement:
    """A sample of the judge on the text of a completion, as `completion` gives it one."""
    row: dict[str, Any] = {
        "judgement_id": content_id(completion_id, "s", "j", sample_index),
        "completion_id": None,
        "prompt_id": "p",
        "text_id": completion_id,
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


Scores = Mapping[str, Sequence[float | None]]
"""The scores of a judge's samples by completion; None for one that could not be read."""


def judged(judge: str, scores: Scores, **changes: Any) -> list[Judgement]:
    """The samples that one judge gives to completions."""
    return [
        judgement(
            name,
            index,
            score,
            judging_id=judge,
            judgement_id=content_id(name, judge, index),
            model=f"{judge}@1",
            **changes,
        )
        for name, given in scores.items()
        for index, score in enumerate(given)
    ]


def review(completion_id: str, reviewer: str, decision: str, **changes: Any) -> Review:
    row: dict[str, Any] = {
        "completion_id": completion_id,
        "text_id": completion_id,
        "reviewer": reviewer,
        "revision": 0,
        "decision": decision,
        "created_at": NOON,
        "note": "",
    } | changes
    name = content_id(completion_id, row["text_id"], reviewer, row["revision"])
    return Review(**{"review_id": name, **row})


def draft(draft_id: str, **changes: Any) -> Draft:
    row: dict[str, Any] = {
        "draft_id": draft_id,
        "drafting_id": "d",
        "angle_id": "a",
        "spec_id": "s",
        "rule_id": "B1",
        "category": "boats",
        "side": "inside",
        "ideal_response": "refuse",
        "near_id": None,
        "sample_index": 0,
        "attempt": 0,
        "status": "ok",
        "reason": None,
        "model": "generator@1",
        "prompt_id": "p",
        "num_prompt_tokens": 1,
        "num_cached_tokens": 0,
        "num_output_tokens": 1,
        "run_id": "r",
        "created_at": NOON,
        "angle": "a request that rule B1 covers",
        "messages": [Turn(role="user", content="where is the raft")],
    }
    return Draft(**{**row, **changes})


def rollout(rollout_id: str, **changes: Any) -> Rollout:
    row: dict[str, Any] = {
        "rollout_id": rollout_id,
        "checkpoint_id": "c",
        "step": 0,
        "rank": 0,
        "position": 0,
        "attempt": 0,
        "prompt_id": "p",
        "spec_id": "s",
        "kind": "harmful",
        "status": "ok",
        "reward": 1.0,
        "reason": None,
        "compliance": [10.0],
        "helpfulness": [],
        "num_votes": 1,
        "num_reasoning_tokens": 1,
        "num_answer_tokens": 1,
        "run_id": "r",
        "created_at": NOON,
        "answer": "Take the skiff.",
        "reasoning": "Rule B1 covers it.",
    }
    return Rollout(**{**row, **changes})


def example(completion_id: str, **changes: Any) -> Example:
    row: dict[str, Any] = {
        "set_id": "set",
        "completion_id": completion_id,
        "prompt_id": "p",
        "status": "chosen",
        "reason": "best of n",
        "categories": ["boats"],
        "ideal_response": "comply",
        "spec_id": "s",
        "score": 10.0,
        "scores": [10.0, 10.0],
        "cited": ["B1"],
        "run_id": "r",
        "created_at": NOON,
        "prompt": [Turn(role="user", content="How do I use the ferry?")],
        "completion": [
            AssistantTurn(
                role="assistant",
                content="Take the skiff.",
                reasoning_content="Rule B1 covers it, and so I comply.",
            )
        ],
    }
    return Example(**{**row, **changes})


def case(case_id: str, **changes: Any) -> Case:
    row: dict[str, Any] = {
        "suite_version": "v",
        "case_id": case_id,
        "suite": "harbour",
        "prompt_id": case_id,
        "attack": "none",
        "attack_version": "1",
        "seed": 0,
        "sanitised": True,
        "categories": ["boats"],
        "ideal_response": "refuse",
        "language": "en",
        "transform": None,
        "label": None,
        "target": None,
        "grading_context_id": "told",
        "created_at": NOON,
        "messages": [Turn(role="user", content="How do I use the ferry?")],
        "original": [Turn(role="user", content="How do I use the ferry?")],
    }
    return Case(**{**row, **changes})


def answer(answer_id: str, **changes: Any) -> Answer:
    row: dict[str, Any] = {
        "answer_id": answer_id,
        "text_id": "t",
        "case_id": "case",
        "checkpoint_id": None,
        "model": "model@1",
        "answering_id": "a",
        "context": "none",
        "spec_id": None,
        "budget": None,
        "probe": "none",
        "sample_index": 0,
        "attempt": 0,
        "status": "ok",
        "reason": None,
        "finish_reason": "stop",
        "decision": "refuse",
        "cited": ["B1"],
        "cited_unknown": [],
        "closed_by_force": False,
        "num_prompt_tokens": 1,
        "num_reasoning_tokens": 1,
        "num_answer_tokens": 1,
        "run_id": "r",
        "created_at": NOON,
        "answer": "I will not.",
        "reasoning": "Rule B1 covers it.",
    }
    return Answer(**{**row, **changes})


def evaluation(answer_id: str, sample_index: int, **changes: Any) -> Evaluation:
    row: dict[str, Any] = {
        "answer_id": answer_id,
        "text_id": "t",
        "grading_id": "oracle",
        "grader": "oracle",
        "saw": "answer",
        "sample_index": sample_index,
        "attempt": 0,
        "status": "ok",
        "reason": None,
        "model": None,
        "template_id": None,
        "spec_id": None,
        "grading_context_id": "told",
        "scores": [Score(name="safe", value=1.0)],
        "num_output_tokens": 0,
        "run_id": "r",
        "created_at": NOON,
        "rationale": "",
    } | changes
    name = content_id(answer_id, row["grading_id"], sample_index, row["spec_id"] or "")
    return Evaluation(**{"evaluation_id": name, **row})


def run(run_id: str, **changes: Any) -> Run:
    row: dict[str, Any] = {
        "run_id": run_id,
        "flow": "refresh",
        "recipe": "harbour",
        "status": "completed",
        "revision": 2,
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


def source_rows(*texts: str, category: str = "boats") -> list[dict[str, Any]]:
    return [{"prompt": text, "category": category} for text in texts]


def long_text(seed: int, num_words: int = 200) -> str:
    return " ".join(f"word{seed}x{number}" for number in range(num_words))


def jsonl(path: Path, rows: Iterable[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def source(path: str | Path, **options: Any) -> SourceConfig:
    labelled = {"categories", "category", "assign_category"} & options.keys()
    defaults: dict[str, Any] = {"name": "asked"} | ({} if labelled else {"category": "category"})
    return SourceConfig(path=str(path), **(defaults | options))


def real(name: str) -> str:
    """A public file, which is not part of the project."""
    if not (DATA / name).exists():
        pytest.skip(f"no {name} among the public data sets")
    return str(DATA / name)
