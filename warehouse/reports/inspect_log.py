"""The answers of an evaluation as logs of Inspect, and as lines with the names of its data frames.

A log is one arm with one seed in one suite: what it was asked, what it answered, what each grader
made of it. Inspect itself is needed for logs alone.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import duckdb

from warehouse.catalog import choose_run
from warehouse.tables import content_id

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample
    from inspect_ai.scorer import Score

Format = Literal["eval", "json"]


class InspectMissing(ValueError):
    """Inspect is not installed."""


def export(
    connection: duckdb.DuckDBPyConnection, run_id: str, folder: str | Path, format: Format = "json"
) -> list[Path]:
    """Writes a log for each arm, seed and suite of an evaluation; returns the files.

    A file appears whole or not at all. Raises InspectMissing where Inspect is not installed, and
    QuestionError where there is no such evaluation.
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
    run = _run(connection)
    graders = _graders(connection)
    paths = []
    for arm, suite, rows in _asked(connection):
        log = _log(run, arm, suite, graders, rows)
        path = place / f"{_file_name(log)}.{format}"
        partial = path.with_name(f".{path.name}.partial")
        try:
            write_eval_log(log, partial, format=format)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        paths.append(path)
    return paths


def export_jsonl(connection: duckdb.DuckDBPyConnection, run_id: str, path: str | Path) -> int:
    """Writes a line for each answer with the names of Inspect's data frame of samples.

    `id, epoch, input, target, metadata_*, score_*`, and `output`, `reasoning` and `error` beside
    them. The file appears whole or not at all; returns the number of lines.
    """
    choose_run(connection, run_id)
    graders = _graders(connection)
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    count = 0
    try:
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as lines:
            for arm, suite, rows in _asked(connection):
                for row in rows:
                    line = _line(arm, suite, graders, row)
                    lines.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
                    count += 1
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _line(
    arm: dict[str, Any],
    suite: dict[str, Any],
    graders: Sequence[dict[str, Any]],
    row: dict[str, Any],
) -> dict[str, Any]:
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
    """The value of a grader that gives one score; all of them where it gives several."""
    return next(iter(values.values()), None) if len(values) < 2 else values


_ASKED = """
SELECT
    c.prompt_id || if(c.attack = 'none', '', '/' || c.attack) AS plain_id,
    if(
        count(DISTINCT c.case_id) OVER (PARTITION BY plain_id) > 1,
        plain_id || '/' || left(c.case_id, 8),
        plain_id
    ) AS id,
    c.case_id, c.prompt_id, c.attack, c.attack_version, c.sanitised, c.categories, c.kind,
    c.ideal_response, c.language, c.transform, c.label, c.sample_index, c.answer_id,
    k.target, k.messages, k.original,
    a.status, a.reason, a.finish_reason, a.decision, a.cited, a.cited_unknown, a.closed_by_force,
    a.num_prompt_tokens, a.num_reasoning_tokens, a.num_answer_tokens, a.created_at,
    a.answer, a.reasoning
FROM cells AS c
JOIN run_cases AS k USING (suite, case_id)
LEFT JOIN answers AS a USING (answer_id)
WHERE c.arm = $arm AND c.seed IS NOT DISTINCT FROM $seed AND c.probe = $probe AND c.suite = $suite
  -- Of an arm that is tampered with only some answers are there, and none is missing.
  AND (c.probe = 'none' OR c.answer_id IS NOT NULL)
ORDER BY id, c.sample_index
"""

# Views over a whole run: asked once, not for each log.
_PREPARE = """
CREATE OR REPLACE TEMP TABLE exported_scores AS
SELECT DISTINCT answer_id, grader, score, value FROM graded WHERE answer_id IS NOT NULL;
CREATE OR REPLACE TEMP TABLE exported_votes AS
SELECT * EXCLUDE (run_id, evaluation_id) FROM run_grades;
"""

_SCORES = """
FROM exported_scores
SEMI JOIN (SELECT unnest($answers) AS answer_id) AS wanted USING (answer_id)
ORDER BY score
"""

_VOTES = """
FROM exported_votes
SEMI JOIN (SELECT unnest($answers) AS answer_id) AS wanted USING (answer_id)
ORDER BY sample_index
"""


def _asked(
    connection: duckdb.DuckDBPyConnection,
) -> Iterator[tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]]:
    """Every arm with every suite, and its answers with scores and votes by grader."""
    connection.execute(_PREPARE)
    arms = _rows(connection, "FROM arms ORDER BY position, seed, probe")
    suites = _rows(connection, "FROM run_suites ORDER BY suite")
    for arm in arms:
        for suite in suites:
            which = {name: arm[name] for name in ("arm", "seed", "probe")}
            which |= {"suite": suite["suite"]}
            rows = _rows(connection, _ASKED, which)
            if not rows:
                continue
            scores: dict[str, dict[str, dict[str, float | None]]] = {}
            answers = [row["answer_id"] for row in rows if row["answer_id"]]
            for one in _rows(connection, _SCORES, {"answers": answers}):
                given = scores.setdefault(one["answer_id"], {}).setdefault(one["grader"], {})
                given[one["score"]] = one["value"]
            votes: dict[str, dict[str, list[dict[str, Any]]]] = {}
            for vote in _rows(connection, _VOTES, {"answers": answers}):
                cast = votes.setdefault(vote["answer_id"], {})
                cast.setdefault(vote["grader"], []).append(vote)
            for row in rows:
                row["scores"] = scores.get(row["answer_id"], {})
                row["votes"] = votes.get(row["answer_id"], {})
            yield arm, suite, rows


def _rows(
    connection: duckdb.DuckDBPyConnection, query: str, params: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = connection.sql(query, params=params).to_arrow_table().to_pylist()
    return found


def _run(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    [run] = _rows(connection, "FROM runs SEMI JOIN current_run USING (run_id)")
    return run


def _graders(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    return _rows(connection, "FROM run_graders ORDER BY grader, grading_id")


def _values(row: dict[str, Any], grader: dict[str, Any]) -> dict[str, float | None]:
    found: dict[str, float | None] = row["scores"].get(grader["grader"], {})
    return found


def _metadata(row: dict[str, Any]) -> dict[str, Any]:
    """What is known of a case and its answer besides their texts."""
    names = (
        *("case_id", "prompt_id", "attack", "attack_version", "sanitised", "categories", "kind"),
        *("ideal_response", "language", "transform", "label", "answer_id", "status", "reason"),
        *("decision", "cited", "cited_unknown", "closed_by_force"),
    )
    return {name: row[name] for name in names} | {"original": row["original"]}


def _fault(row: dict[str, Any]) -> str | None:
    """Why there is no answer to read; null where there is one."""
    if row["answer_id"] is None:
        return "missing"
    if row["status"] == "ok":
        return None
    return f"{row['status']}: {row['reason']}" if row["reason"] else str(row["status"])


def _log(
    run: dict[str, Any],
    arm: dict[str, Any],
    suite: dict[str, Any],
    graders: Sequence[dict[str, Any]],
    rows: Sequence[dict[str, Any]],
) -> "EvalLog":
    from inspect_ai.log import (
        EvalConfig,
        EvalDataset,
        EvalLog,
        EvalResults,
        EvalRevision,
        EvalSpec,
        EvalStats,
    )

    ids = list(dict.fromkeys(row["id"] for row in rows))
    name = content_id(run["run_id"], arm["arm"], arm["seed"], arm["probe"], suite["suite"])
    commit = run["git_commit"]
    asked = [one for one in graders if any(one["grader"] in row["scores"] for row in rows)]
    return EvalLog(
        status={"completed": "success", "failed": "error"}.get(run["status"], "started"),
        eval=EvalSpec(
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
            revision=EvalRevision(
                type="git", origin="", commit=commit.rstrip("+"), dirty=commit.endswith("+")
            )
            if commit
            else None,
            packages=json.loads(run["versions"]),
            metadata={
                "recipe": run["recipe"],
                "checkpoint_id": arm["checkpoint_id"],
                "answering_id": arm["answering_id"],
            },
            scorers=[{"name": one["grader"], "metadata": one} for one in asked],
        ),
        results=EvalResults(
            total_samples=len(rows),
            completed_samples=sum(_fault(row) is None for row in rows),
            scores=[made for one in asked for made in _means(one, rows)],
        ),
        stats=EvalStats(
            started_at=_time(run["started_at"]),
            completed_at=_time(run["ended_at"]) if run["ended_at"] else "",
        ),
        samples=[_sample(arm, asked, row) for row in rows],
    )


def _means(grader: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Iterator[Any]:
    """The mean of each score of a grader, over the answers for which it was read."""
    from inspect_ai.log import EvalMetric, EvalScore

    found = [_values(row, grader) for row in rows]
    for name in dict.fromkeys(name for values in found for name in values):
        read = [v for values in found if (v := values.get(name)) is not None]
        wanted = sum(name in values for values in found)
        yield EvalScore(
            name=name,
            scorer=grader["grader"],
            scored_samples=len(read),
            unscored_samples=wanted - len(read),
            metrics={"mean": EvalMetric(name="mean", value=sum(read) / len(read))} if read else {},
        )


def _sample(
    arm: dict[str, Any], graders: Sequence[dict[str, Any]], row: dict[str, Any]
) -> "EvalSample":
    from inspect_ai.log import EvalError, EvalSample
    from inspect_ai.model import (
        ChatCompletionChoice,
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageUser,
        ContentReasoning,
        ContentText,
        ModelOutput,
        ModelUsage,
    )

    name = row["answer_id"] or content_id(row["case_id"], row["sample_index"])
    kinds = {
        "system": ChatMessageSystem,
        "user": ChatMessageUser,
        "assistant": ChatMessageAssistant,
        # What a tool gave, without the call, which suites do not hold.
        "tool": ChatMessageUser,
    }
    asked = [
        kinds[turn["role"]](content=turn["content"], id=f"{row['case_id']}-{number}")
        for number, turn in enumerate(row["messages"])
    ]
    output, usage, said = ModelOutput(model=arm["model"]), {}, []
    if row["answer_id"]:
        reasoning = [ContentReasoning(reasoning=row["reasoning"])] if row["reasoning"] else []
        message = ChatMessageAssistant(
            id=name,
            content=[*reasoning, ContentText(text=row["answer"])],
            source="generate",
            model=arm["model"],
        )
        tokens = row["num_reasoning_tokens"] + row["num_answer_tokens"]
        used = ModelUsage(
            input_tokens=row["num_prompt_tokens"],
            output_tokens=tokens,
            total_tokens=row["num_prompt_tokens"] + tokens,
            reasoning_tokens=row["num_reasoning_tokens"],
        )
        stop = {"stop": "stop", "length": "max_tokens"}.get(row["finish_reason"], "unknown")
        choice = ChatCompletionChoice(message=message, stop_reason=stop)
        output = ModelOutput(model=arm["model"], choices=[choice], usage=used)
        usage, said = {arm["model"]: used}, [message]
    fault = _fault(row) if row["status"] in (None, "error") else None
    return EvalSample(
        id=row["id"],
        epoch=row["sample_index"] + 1,
        uuid=name,
        input=asked,
        target=row["target"] or row["ideal_response"] or "",
        messages=[*asked, *said],
        output=output,
        model_usage=usage,
        metadata=_metadata(row),
        scores={one["grader"]: _score(one, row) for one in graders},
        completed_at=_time(row["created_at"]) if row["created_at"] else None,
        error=EvalError(message=fault, traceback="", traceback_ansi="") if fault else None,
    )


def _score(grader: dict[str, Any], row: dict[str, Any]) -> "Score":
    """What a grader made of an answer; kept without a value where it could not be read."""
    from inspect_ai.scorer import Score

    values = _values(row, grader)
    votes = row["votes"].get(grader["grader"], [])
    told: dict[str, Any] = {
        "answer": row["decision"],
        "explanation": "\n\n".join(vote["rationale"] for vote in votes if vote["rationale"])
        or None,
        "metadata": {**grader, "votes": [_vote(vote) for vote in votes]},
    }
    if all(value is None for value in values.values()):
        answered = row["status"] == "ok"
        return Score.unscored(reason="grader_failed" if answered else "no_response", **told)
    value = _only(values)
    assert value is not None
    return Score(value=value, **told)


def _vote(vote: dict[str, Any]) -> dict[str, Any]:
    names = ("sample_index", "status", "reason", "model", "template_id", "spec_id", "rationale")
    scores = {score["name"]: score["value"] for score in vote["scores"]}
    return {name: vote[name] for name in names} | {"scores": scores}


def _time(value: datetime) -> str:
    return value.astimezone(UTC).isoformat()


def _file_name(log: "EvalLog") -> str:
    """Time, task and id as Inspect names its logs, so that its viewer lists them."""
    time = log.eval.created.replace(":", "-").replace("+", "-")
    task = "".join(sign if sign.isalnum() else "-" for sign in log.eval.task)
    return f"{time}_{task}_{log.eval.task_id}"
