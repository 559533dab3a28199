"""The state of a warehouse: its tables, its last runs, and the engines at work."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from flows import terminal
from flows.lock import locked_since
from flows.show import SHORT_ID, table
from warehouse.catalog import connect, count_rows, look_up, unread_files
from warehouse.home import Home

_NUM_RUNS = 5
_USAGE_SHOWN = ("running", "output_tokens")
_CLOCK = timedelta(seconds=2)
"""Allowance for the coarse times of files."""


def show_status(home: Home, *, as_json: bool) -> None:
    """Prints the rows of each table, the last runs, and the run and engines in progress."""
    connection = connect(home)
    counts = [{"table": name, "num_rows": n} for name, n in count_rows(connection).items()]
    since = locked_since(home)
    latest = look_up(connection, "latest_runs", count=_NUM_RUNS)
    runs = [_standing(home, run, since) for run in latest]
    engines = _live_engines(home) if since else []
    unread = [asdict(stray) for stray in unread_files(connection)]
    if as_json:
        shown = {"tables": counts, "runs": runs, "engines": engines, "writing": since is not None}
        terminal.as_json({**shown, "unread_files": unread})
        return
    table(pa.Table.from_pylist(counts), title=f"Warehouse {home.url}")
    _print_runs(runs)
    if unread:
        title = "Not read; precept doctor --mend sets them aside"
        table(pa.Table.from_pylist(unread), title=title)
    if since and not any(run["status"] == "running" for run in runs):
        terminal.line(f"a process has been writing for {_duration(_age(since))}; it is no run")
    for engine in engines:
        terminal.line(
            f"engine {engine['pid']}: {engine['running']} sequences in progress, "
            f"{engine['output_tokens']} tokens so far"
        )


def _standing(home: Home, run: dict[str, Any], since: datetime | None) -> dict[str, Any]:
    """Returns a run with what is so now: a record at `running` outlives the process that wrote it.

    A run records itself just after it took the lock, so one that was recorded before the lock was
    last taken is over. Who holds the lock of a store on another machine cannot be seen from here.
    """
    started = run["started_at"]
    if run["status"] == "running":
        if since and started >= since - _CLOCK:
            run = {**run, "seconds": round(_age(started), 1)}
        else:
            run = {**run, "status": "interrupted" if home.is_local else "unfinished"}
    return {**run, "started_at": f"{started:%Y-%m-%d %H:%M:%S}"}


def _print_runs(runs: Sequence[dict[str, Any]]) -> None:
    """Prints the run in progress in a sentence, the last runs as a table, and their errors."""
    for run in runs:
        if run["status"] == "running":
            terminal.line(
                f"{run['flow']} of recipe {run['recipe']} has been running for "
                f"{_duration(run['seconds'])}, run {run['run_id'][:SHORT_ID]}"
            )
    if runs:
        has_student = any(run["student"] for run in runs)
        listed = [
            {
                "started_at": run["started_at"][:-3],
                **{name: run[name] for name in ("flow", "recipe", "status")},
                "took": _took(run),
                **({"student": run["student"]} if has_student else {}),
                "run_id": run["run_id"],
            }
            for run in runs
        ]
        table(pa.Table.from_pylist(listed), title="Last runs")
    for run in runs:
        if run["error"]:
            terminal.fields([(f"run {run['run_id'][:SHORT_ID]}", run["error"])])
        elif run["status"] == "unfinished":
            terminal.line(
                f"run {run['run_id'][:SHORT_ID]}: another machine may still be at it, or it was "
                "killed; the same command again goes on"
            )


def _took(run: dict[str, Any]) -> str:
    """Returns how long a run took, or has taken so far; a killed run did not say."""
    if run["status"] in ("interrupted", "unfinished"):
        return "–"
    return _duration(run["seconds"]) + (" so far" if run["status"] == "running" else "")


def _age(moment: datetime) -> float:
    return max(0.0, (datetime.now(UTC) - moment).total_seconds())


def _duration(seconds: float) -> str:
    """Returns a time as its two largest units: 75 → "1 min 15 s"."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _live_engines(home: Home) -> list[dict[str, Any]]:
    """Returns the usage that engines wrote within the last 15 seconds."""
    engines = []
    for path in sorted(Path(home.root).glob("engines/*/*.json")):
        if path.stat().st_mtime <= time.time() - 15:
            continue
        try:
            usage = json.loads(path.read_text())
            engines.append({"pid": path.stem, **{name: int(usage[name]) for name in _USAGE_SHOWN}})
        except (ValueError, TypeError, KeyError):
            # An engine writes its file in one step, so this one is none of an engine's.
            continue
    return engines
