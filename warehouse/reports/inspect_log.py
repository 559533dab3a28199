"""The answers of an evaluation as Inspect's logs, and as lines with the names of its data frames.

A log is one arm with one seed in one suite: its cases, its answers and their grades. Only logs need
Inspect itself.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import duckdb

from warehouse.catalog import choose_run, look_up, materialise
from warehouse.characters import all_visible, json_text, visible
from warehouse.files import write_whole
from warehouse.tables import content_id

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample, EvalSpec
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Score

Format = Literal["eval", "json"]
_LONGEST_NAME = 60
"""Signs of a suite's name in the name of a file, of which file systems take 255 bytes."""


class InspectMissing(ValueError):
    """Inspect is not installed."""


def export(
    connection: duckdb.DuckDBPyConnection, run_id: str, folder: str | Path, format: Format = "json"
) -> list[Path]:
    """Writes a log for each arm, seed and suite of an evaluation; returns the files.

    A file appears whole or not at all. Raises InspectMissing if Inspect is not installed, and
    QuestionError if there is no such evaluation.
    """
    try:
        from inspect_ai.log import write_eval_log
    except ImportError as error:
        raise InspectMissing(
            "Inspect is needed to write its logs; install it with pip install inspect-ai"
        ) from error
    choose_run(connection, run_id)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    [run] = look_up(connection, "evaluation_record")
    graders = look_up(connection, "graders")
    paths = []
    for answers in _answers(connection):
        log = _log(all_visible(run), _named(answers), all_visible(graders))
        path = place / f"{_file_name(log)}.{format}"
        with write_whole(path) as partial:
            write_eval_log(log, partial, format=format)
        paths.append(path)
    return paths


def export_jsonl(connection: duckdb.DuckDBPyConnection, run_id: str, path: str | Path) -> int:
    """Writes a line for each answer with the names of Inspect's data frame of samples.

    `id, epoch, input, target, metadata_*, score_*`, and `output`, `reasoning` and `error` beside
    them. The file appears whole or not at all; returns the number of lines.
    """
    choose_run(connection, run_id)
    graders = look_up(connection, "graders")
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    num_lines = 0
    with (
        write_whole(file) as partial,
        partial.open("w", encoding="utf-8") as lines,
    ):
        for arm, suite, rows in _answers(connection):
            for row in rows:
                line = _line(arm, suite, graders, row)
                lines.write(json_text(line) + "\n")
                num_lines += 1
    return num_lines


def _line(
    arm: dict[str, Any],
    suite: dict[str, Any],
    graders: Sequence[dict[str, Any]],
    row: dict[str, Any],
) -> dict[str, Any]:
    """Returns one answer as a row of Inspect's data frame."""
    who = {name: arm[name] for name in ("arm", "seed", "model", "context", "budget", "probe")}
    metadata = {"suite": suite["suite"], **who, **_metadata(row)}
    scores: dict[str, Any] = {}
    for grader in graders:
        name = f"score_{grader['grader']}"
        if values := _values(row, grader):
            scores[name] = _only(values)
            scores |= {f"{name}_{score}": value for score, value in values.items()}
    return {
        "id": row["id"],
        "epoch": row["sample_index"] + 1,
        "input": "\n\n".join(f"{turn['role']}:\n{turn['content']}\n" for turn in row["messages"]),
        "target": row["target"] or row["ideal_response"] or "",
        "output": row["answer"],
        "reasoning": row["reasoning"],
        "error": _fault(row),
        **{f"metadata_{name}": value for name, value in metadata.items()},
        **scores,
    }


def _only(values: dict[str, float | None]) -> float | dict[str, float | None] | None:
    """Returns the value of a grader that gives one score, or all values if it gives several."""
    return next(iter(values.values()), None) if len(values) < 2 else values


Rows = list[dict[str, Any]]


class _Answers(NamedTuple):
    """The answers of one arm in one suite, each with its scores and grades by grader."""

    arm: dict[str, Any]
    suite: dict[str, Any]
    rows: Rows


def _answers(connection: duckdb.DuckDBPyConnection) -> Iterator[_Answers]:
    """Yields every arm with every suite that it answered."""
    # Views over the whole evaluation: computed once, not for each log.
    materialise(connection, "exported_scores")
    materialise(connection, "exported_grades")
    arms, suites = look_up(connection, "arms"), look_up(connection, "evaluated_suites")
    for arm, suite in itertools.product(arms, suites):
        which = {name: arm[name] for name in ("arm", "seed", "probe")}
        rows = look_up(connection, "exported_answers", suite=suite["suite"], **which)
        if not rows:
            continue
        ids = [row["answer_id"] for row in rows if row["answer_id"]]
        scores: dict[str, dict[str, dict[str, float | None]]] = {}
        for row in look_up(connection, "scores_of_answers", answers=ids):
            by_grader = scores.setdefault(row["answer_id"], {})
            by_grader.setdefault(row["grader"], {})[row["score"]] = row["value"]
        grades: dict[str, dict[str, Rows]] = {}
        for row in look_up(connection, "whole_grades_of_answers", answers=ids):
            grades.setdefault(row["answer_id"], {}).setdefault(row["grader"], []).append(row)
        for row in rows:
            row["scores"] = scores.get(row["answer_id"], {})
            row["grades"] = grades.get(row["answer_id"], {})
        yield _Answers(arm, suite, rows)


def _named(answers: _Answers) -> _Answers:
    """Returns answers with names that a log can show; their texts stay what they are."""
    arm, suite, rows = answers
    named = [{**row, "grades": _by_name(row["grades"])} for row in rows]
    named = [{**row, "scores": all_visible(row["scores"])} for row in named]
    return _Answers(all_visible(arm), all_visible(suite), named)


def _by_name(grades: dict[str, Rows]) -> dict[str, Rows]:
    return {visible(grader): rows for grader, rows in grades.items()}


def _values(row: dict[str, Any], grader: dict[str, Any]) -> dict[str, float | None]:
    values: dict[str, float | None] = row["scores"].get(grader["grader"], {})
    return values


def _metadata(row: dict[str, Any]) -> dict[str, Any]:
    """Returns the columns of a case and its answer, without their texts."""
    names = (
        *("case_id", "prompt_id", "attack", "attack_version", "sanitised", "categories", "kind"),
        *("ideal_response", "language", "transform", "label", "answer_id", "status", "reason"),
        *("decision", "cited", "cited_unknown", "closed_by_force"),
    )
    given = [{k: v for k, v in turn.items() if v is not None} for turn in row["original"]]
    return {name: row[name] for name in names} | {"original": given}


def _fault(row: dict[str, Any]) -> str | None:
    """Returns why there is no answer to read, or None if there is one."""
    if row["answer_id"] is None:
        return "missing"
    if row["status"] == "ok":
        return None
    return f"{row['status']}: {row['reason']}" if row["reason"] else str(row["status"])


def _spec(run: dict[str, Any], answers: _Answers, graders: Sequence[dict[str, Any]]) -> "EvalSpec":
    """Returns what was evaluated: suite, arm, and the versions of both."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalRevision, EvalSpec

    arm, suite, rows = answers
    ids = list(dict.fromkeys(row["id"] for row in rows))
    name = content_id(run["run_id"], arm["arm"], arm["seed"], arm["probe"], suite["suite"])
    commit = run["git_commit"]
    revision = None
    if commit:
        revision = EvalRevision(
            type="git", origin="", commit=commit.rstrip("+"), dirty=commit.endswith("+")
        )
    return EvalSpec(
        eval_set_id=run["run_id"],
        eval_id=name,
        run_id=run["run_id"],
        created=_time(run["started_at"]),
        task=suite["suite"],
        task_id=name,
        task_version=suite["suite_version"],
        task_args={key: arm[key] for key in ("arm", "seed", "context", "budget", "probe")},
        tags=[arm["arm"]],
        dataset=EvalDataset(name=suite["suite"], samples=len(ids), sample_ids=ids),
        model=arm["model"],
        config=EvalConfig(epochs=max(row["sample_index"] for row in rows) + 1),
        revision=revision,
        packages=json.loads(run["versions"]),
        metadata={
            "recipe": run["recipe"],
            "checkpoint_id": arm["checkpoint_id"],
            "answering_id": arm["answering_id"],
        },
        scorers=[{"name": grader["grader"], "metadata": grader} for grader in graders],
    )


def _log(run: dict[str, Any], answers: _Answers, graders: Sequence[dict[str, Any]]) -> "EvalLog":
    """Returns the log of one arm in one suite."""
    from inspect_ai.log import EvalLog, EvalResults, EvalStats

    arm, rows = answers.arm, answers.rows
    used = [g for g in graders if any(g["grader"] in row["scores"] for row in rows)]
    status = {"completed": "success", "failed": "error", "interrupted": "cancelled"}
    return EvalLog(
        status=status.get(run["status"], "started"),
        eval=_spec(run, answers, used),
        results=EvalResults(
            total_samples=len(rows),
            completed_samples=sum(_fault(row) is None for row in rows),
            scores=[mean for grader in used for mean in _means(grader, rows)],
        ),
        stats=EvalStats(
            started_at=_time(run["started_at"]),
            completed_at=_time(run["ended_at"]) if run["ended_at"] else "",
        ),
        samples=[_sample(arm, used, row) for row in rows],
    )


def _means(grader: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Iterator[Any]:
    """Yields the mean of each score of a grader, over the answers for which it was read."""
    from inspect_ai.log import EvalMetric, EvalScore

    by_row = [_values(row, grader) for row in rows]
    for name in dict.fromkeys(name for values in by_row for name in values):
        read = [v for values in by_row if (v := values.get(name)) is not None]
        num_asked = sum(name in values for values in by_row)
        yield EvalScore(
            name=name,
            scorer=grader["grader"],
            scored_samples=len(read),
            unscored_samples=num_asked - len(read),
            metrics={"mean": EvalMetric(name="mean", value=sum(read) / len(read))} if read else {},
        )


def _sample(
    arm: dict[str, Any], graders: Sequence[dict[str, Any]], row: dict[str, Any]
) -> "EvalSample":
    from inspect_ai.log import EvalError, EvalSample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser

    name = row["answer_id"] or content_id(row["case_id"], row["sample_index"])
    kinds = {
        "system": ChatMessageSystem,
        "user": ChatMessageUser,
        "assistant": ChatMessageAssistant,
        # Inspect wants the call as a type of its own with what a tool returned: both are text here.
        "tool": ChatMessageUser,
    }
    messages = [
        kinds[turn["role"]](content=_told(turn), id=f"{row['case_id']}-{number}")
        for number, turn in enumerate(row["messages"])
    ]
    output = _output(arm, row, name)
    fault = _fault(row) if row["status"] in (None, "error") else None
    return EvalSample(
        id=row["id"],
        epoch=row["sample_index"] + 1,
        uuid=name,
        input=messages,
        target=row["target"] or row["ideal_response"] or "",
        messages=[*messages, *(choice.message for choice in output.choices)],
        output=output,
        model_usage={arm["model"]: output.usage} if output.usage else {},
        metadata=_metadata(row),
        scores={grader["grader"]: _score(grader, row) for grader in graders},
        completed_at=_time(row["created_at"]) if row["created_at"] else None,
        error=EvalError(message=fault, traceback="", traceback_ansi="") if fault else None,
    )


def _told(turn: dict[str, Any]) -> str:
    """Returns the text of a turn, with its calls of tools below it."""
    return "\n".join(filter(None, (str(turn["content"]), turn.get("tool_calls"))))


def _output(arm: dict[str, Any], row: dict[str, Any], message_id: str) -> "ModelOutput":
    """Returns what the model said, with its tokens; without a choice if it gave no answer."""
    from inspect_ai.model import (
        ChatCompletionChoice,
        ChatMessageAssistant,
        ContentReasoning,
        ContentText,
        ModelOutput,
        ModelUsage,
    )

    if not row["answer_id"]:
        return ModelOutput(model=arm["model"])
    reasoning = [ContentReasoning(reasoning=row["reasoning"])] if row["reasoning"] else []
    message = ChatMessageAssistant(
        id=message_id,
        content=[*reasoning, ContentText(text=row["answer"])],
        source="generate",
        model=arm["model"],
    )
    usage = None
    # An endpoint need not tell its tokens.
    if None not in (row["num_prompt_tokens"], row["num_answer_tokens"]):
        tokens = row["num_reasoning_tokens"] + row["num_answer_tokens"]
        usage = ModelUsage(
            input_tokens=row["num_prompt_tokens"],
            output_tokens=tokens,
            total_tokens=row["num_prompt_tokens"] + tokens,
            reasoning_tokens=row["num_reasoning_tokens"],
        )
    stop = {"stop": "stop", "length": "max_tokens"}.get(row["finish_reason"], "unknown")
    choice = ChatCompletionChoice(message=message, stop_reason=stop)
    return ModelOutput(model=arm["model"], choices=[choice], usage=usage)


def _score(grader: dict[str, Any], row: dict[str, Any]) -> "Score":
    """Returns a grader's score of an answer; a score that could not be read has no value."""
    from inspect_ai.scorer import Score

    values = _values(row, grader)
    grades = row["grades"].get(grader["grader"], [])
    details: dict[str, Any] = {
        "answer": row["decision"],
        "explanation": "\n\n".join(grade["rationale"] for grade in grades if grade["rationale"])
        or None,
        "metadata": {**grader, "grades": [_grade(grade) for grade in grades]},
    }
    if all(value is None for value in values.values()):
        answered = row["status"] == "ok"
        return Score.unscored(reason="grader_failed" if answered else "no_response", **details)
    value = _only(values)
    assert value is not None
    return Score(value=value, **details)


def _grade(grade: dict[str, Any]) -> dict[str, Any]:
    names = ("sample_index", "status", "reason", "model", "template_id", "spec_id", "rationale")
    scores = {score["name"]: score["value"] for score in grade["scores"]}
    return {name: grade[name] for name in names} | {"scores": scores}


def _time(value: datetime) -> str:
    return value.astimezone(UTC).isoformat()


def _file_name(log: "EvalLog") -> str:
    """Returns time, task and id as Inspect names its logs, so that its viewer lists them."""
    time = log.eval.created.replace(":", "-").replace("+", "-")
    task = "".join(sign if sign.isalnum() else "-" for sign in log.eval.task)[:_LONGEST_NAME]
    return f"{time}_{task}_{log.eval.task_id}"
