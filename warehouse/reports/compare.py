"""Two runs side by side: what was asked of them differently, and what came of it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from warehouse.catalog import QuestionError, choose_run

_METRICS = """
    WITH paired AS (
        SELECT
            {arm: a.arm, suite: a.suite, metric: a.metric, grader: a.grader} AS member,
            a.prompt_id,
            b.value - a.value AS value
        FROM values_a AS a
        JOIN values_b AS b USING (arm, suite, metric, grader, prompt_id)
    ),
    means AS (
        SELECT arm, suite, metric, grader, avg(a.value) AS a, avg(b.value) AS b
        FROM values_a AS a
        JOIN values_b AS b USING (arm, suite, metric, grader, prompt_id)
        GROUP BY ALL
    )
    SELECT
        arm, suite, metric, grader, round(m.a, 4) AS a, round(m.b, 4) AS b,
        i.mean AS difference, i.low, i.high, i.num_prompts
    FROM intervals('paired') AS i
    JOIN means AS m USING (arm, suite, metric, grader)
    ORDER BY suite, metric, grader, arm
"""


@dataclass(frozen=True, slots=True)
class Compared:
    """What differs between run A and run B."""

    run_a: str
    run_b: str
    settings: list[dict[str, Any]]
    """Keys of recipe, versions and sources that differ: key, a, b; null where one has none."""
    counts: list[dict[str, Any]]
    """Rows and tokens of every stage that differ."""
    metrics: list[dict[str, Any]]
    """Of arms that both evaluated: B less A over the prompts that both asked, with its interval."""


def compare(connection: duckdb.DuckDBPyConnection, run_a: str, run_b: str) -> Compared:
    """Compares two runs by the starts of their ids; raises QuestionError where one is none."""
    runs = [_find(connection, name) for name in (run_a, run_b)]
    settings = [_settings(run) for run in runs]
    counts = [_counts(json.loads(run["figures"])) for run in runs]
    return Compared(
        run_a=runs[0]["run_id"],
        run_b=runs[1]["run_id"],
        settings=_differing(*settings),
        counts=_differing(*counts),
        metrics=_metrics(connection, runs),
    )


def _find(connection: duckdb.DuckDBPyConnection, run_id: str) -> dict[str, Any]:
    found = connection.sql(
        "SELECT * FROM runs WHERE starts_with(run_id, $id) ORDER BY started_at DESC",
        params={"id": run_id},
    ).to_arrow_table()
    if found.num_rows != 1:
        what = "several runs start with" if found.num_rows else "no run has"
        raise QuestionError(f"{what} id {run_id!r}: give one that `precept status` lists")
    run: dict[str, Any] = found.to_pylist()[0]
    return run


def _settings(run: Mapping[str, Any]) -> dict[str, Any]:
    versions = {f"version of {key}": one for key, one in json.loads(run["versions"]).items()}
    plain = {"flow": run["flow"], "git commit": run["git_commit"], **versions}
    return plain | dict(_flat(json.loads(run["resolved_recipe"]), ""))


def _flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Nested settings as dotted keys."""
    if isinstance(value, dict | list) and value:
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for name, part in parts:
            yield from _flat(part, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _counts(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Rows, statuses and tokens of the stages."""
    wanted = ("rows", "prompt_tokens", "output_tokens", "statuses", "seconds", "steps")
    return {
        key: value
        for stage, told in figures.items()
        if isinstance(told, dict) and stage != "evaluation"
        for key, value in _flat({name: told[name] for name in wanted if name in told}, stage)
    }


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    keys = dict.fromkeys((*a, *b))
    return [
        {"key": key, "a": a.get(key), "b": b.get(key)} for key in keys if a.get(key) != b.get(key)
    ]


def _metrics(
    connection: duckdb.DuckDBPyConnection, runs: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    if not all("evaluation" in json.loads(run["figures"]) for run in runs):
        return []
    for name, run in zip("ab", runs, strict=True):
        choose_run(connection, run["run_id"])
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE values_{name} AS "
            "SELECT arm, suite, metric, grader, prompt_id, avg(value) AS value "
            "FROM metric_values WHERE slice = 'all' GROUP BY ALL"
        )
    rows: list[dict[str, Any]] = connection.sql(_METRICS).to_arrow_table().to_pylist()
    return rows
