"""Two runs side by side: their settings, their counts and their metrics."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from warehouse.catalog import QuestionError, choose_run, look_up, materialise


@dataclass(frozen=True, slots=True)
class Compared:
    """The differences between run A and run B."""

    run_a: str
    run_b: str
    note: str | None
    """A warning that stands first: it is one run, or the flows differ; else None."""
    same_kind: bool
    """True if both made the same kind of thing: examples, a model, an evaluation."""
    settings: list[dict[str, Any]]
    """Keys of recipe and versions that differ: key, a, b; None if a run lacks the key."""
    counts: list[dict[str, Any]]
    """Rows and tokens of every stage that differ."""
    metrics: list[dict[str, Any]]
    """Of arms that both evaluated: B less A over the prompts that both asked, with its interval."""

    @property
    def is_same(self) -> bool:
        """True if both are one run."""
        return self.run_a == self.run_b


def compare(connection: duckdb.DuckDBPyConnection, run_a: str, run_b: str) -> Compared:
    """Compares two runs by the starts of their ids.

    Raises QuestionError if an id matches no run, or several.
    """
    a, b = find_run(connection, run_a), find_run(connection, run_b)
    same_kind = a["flow"] == b["flow"] or all(map(_has_evaluated, (a, b)))
    return Compared(
        run_a=a["run_id"],
        run_b=b["run_id"],
        note=_note(a, b, same_kind),
        same_kind=same_kind,
        settings=_differing(_settings(a), _settings(b)),
        counts=_differing(_counts(connection, a), _counts(connection, b)),
        metrics=_metrics(connection, a, b),
    )


def specs_of(connection: duckdb.DuckDBPyConnection, run_id: str) -> list[str]:
    """Returns the texts of the specs that a run was made under."""
    return [str(row["text"]) for row in look_up(connection, "specs_of_run", run_id=run_id)]


def _note(a: Mapping[str, Any], b: Mapping[str, Any], same_kind: bool) -> str | None:
    if a["run_id"] == b["run_id"]:
        return f"both ids are of run {a['run_id']}, which does not differ from itself"
    if same_kind:
        return None
    return (
        f"run A is of flow {a['flow']} and run B of flow {b['flow']}: they make different things, "
        "so that only what was asked is compared"
    )


def find_run(connection: duckdb.DuckDBPyConnection, run_id: str) -> dict[str, Any]:
    """Returns the run whose id starts so; one whose whole id it is comes before others."""
    if not run_id.strip():
        raise QuestionError("the id of a run is empty: give one that `precept status` lists")
    runs = look_up(connection, "runs_by_id", run_id=run_id.strip())
    runs = [run for run in runs if run["run_id"] == run_id.strip()] or runs
    if not runs:
        raise QuestionError(f"no run has id {run_id!r}: give one that `precept status` lists")
    if len(runs) > 1:
        listed = ", ".join(f"{run['run_id'][:12]} ({run['flow']})" for run in runs[:8])
        raise QuestionError(
            f"{len(runs)} runs have ids that start with {run_id!r}: give more of one of {listed}"
        )
    return runs[0]


def _settings(run: Mapping[str, Any]) -> dict[str, Any]:
    """Returns flow, commit, package versions and every key of the recipe, by name."""
    versions = json.loads(run["versions"])
    plain = {"flow": run["flow"], "git commit": run["git_commit"]}
    plain |= {f"version of {package}": version for package, version in versions.items()}
    return plain | dict(_flat(json.loads(run["resolved_recipe"]), ""))


def _flat(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Yields nested settings under dotted keys."""
    if isinstance(value, dict | list) and value:
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for name, part in parts:
            yield from _flat(part, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def _counts(connection: duckdb.DuckDBPyConnection, run: Mapping[str, Any]) -> dict[str, Any]:
    """Returns rows, statuses and tokens of every stage of a run, under dotted keys."""
    counts: dict[str, Any] = {}
    for row in look_up(connection, "stage_counts", run_id=run["run_id"]):
        stage = row.pop("stage")
        row["statuses"] = json.loads(row["statuses"] or "{}")
        given = {name: value for name, value in row.items() if value not in (None, {})}
        counts |= dict(_flat(given, stage))
    return counts


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    keys = dict.fromkeys((*a, *b))
    return [
        {"key": key, "a": a.get(key), "b": b.get(key)} for key in keys if a.get(key) != b.get(key)
    ]


def _has_evaluated(run: Mapping[str, Any]) -> bool:
    return "evaluation" in json.loads(run["figures"])


def _metrics(
    connection: duckdb.DuckDBPyConnection, a: Mapping[str, Any], b: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Returns the metrics of arms that both runs evaluated; none if either evaluated nothing."""
    if not all(map(_has_evaluated, (a, b))):
        return []
    for table, run in (("values_a", a), ("values_b", b)):
        choose_run(connection, run["run_id"])
        materialise(connection, "prompt_values", table=table)
    return look_up(connection, "compared_metrics")
