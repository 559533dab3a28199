"""Prints tables, rows and the outcomes of flows on the terminal."""

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table as Grid
from rich.text import Text

from flows.lock import is_locked
from flows.run import Refreshed
from tasks.evaluation.rows import SuiteFigures
from tasks.stage import StageFigures
from warehouse.catalog import ask, connect, count_rows, look_up, unread_files
from warehouse.home import Home
from warehouse.rows import FoundRow, find_row
from warehouse.tables import TABLES

if TYPE_CHECKING:
    from flows.align import Aligned
    from flows.calibrate import Calibrated
    from flows.estimate import Estimate
    from flows.evaluate import Evaluated
    from flows.train import Trained
    from warehouse.reports.compare import Compared

_LONGEST_CELL = 100
_MOST_CONFLICTS = 5


def table(data: pa.Table, *, as_json: bool, title: str | None = None) -> None:
    """Prints rows as a table, with long text cut, or as JSON, an object a row, with nothing cut."""
    if as_json:
        for row in data.to_pylist():
            print(json.dumps(row, default=str, ensure_ascii=False))
        return
    grid = Grid(title=title, title_justify="left")
    for name, column in zip(data.column_names, data.columns, strict=True):
        number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        grid.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in data.to_pylist():
        grid.add_row(*(_cell(value) for value in row.values()))
    console().print(grid)


def console() -> Console:
    """Returns the terminal, or plain text of a fixed width if the output goes elsewhere."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=120)


def _cell(value: Any) -> Text:
    if isinstance(value, list):
        value = ", ".join(str(item) for item in value)
    text = "" if value is None else str(value)
    return Text(text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…")


@dataclass(frozen=True, slots=True)
class Place:
    """A recipe and a warehouse as the user typed them, for the commands that are suggested."""

    recipe: str
    home: str | None

    @property
    def option(self) -> str:
        """The --home option to print in a suggested command."""
        return f" --home {shlex.quote(self.home)}" if self.home else ""


def as_json(outcome: Any) -> None:
    """Prints an outcome as one JSON object: its fields, and `best` if it has one."""
    more = {"best": outcome.best} if hasattr(outcome, "best") else {}
    print(json.dumps({**asdict(outcome), **more}, default=str))


def _line(*parts: str) -> None:
    """Prints lines as they are: unbroken, so that a command in them can be copied."""
    console().print("\n".join(parts), highlight=False, soft_wrap=True)


def refreshed(done: Refreshed, place: Place) -> None:
    """Prints the funnel, one accepted completion, usage, and what to do next."""
    figures = done.figures
    table(pa.Table.from_pylist(done.funnel), as_json=False, title="Funnel")
    for shard in figures.damaged:
        _line(f"set aside: {shard.path} ({shard.reason})")
    for source, counts in figures.collect.items():
        _line(f"source {source}: {_counted(asdict(counts))}")
    for source, notes in figures.notes.items():
        _line(f"source {source}: {notes}")
    if conflicts := figures.conflicts:
        _line(f"labelled in different ways: {conflicts.num_prompts} prompts", *conflicts.named)
    if figures.assigned:
        _line(f"categories chosen by the judge model: {_counted(figures.assigned)}")
    accepted = ask(connect(Home(done.home)), "accepted_chains").slice(0, 1).to_pylist()
    if accepted:
        console().print(_chain(accepted[0]))
    for name in ("generate", "judge"):
        _line(_stage_line(name, figures.stages.get(name, StageFigures())))
    if done.shortfall:
        _line(done.shortfall)
    _line(
        f"examples: {done.num_examples} rows in set {done.set_id}",
        f"models loaded: {done.models_loaded}",
        f"warehouse: {done.home} (tables {', '.join(TABLES)})",
        f"next: precept ask acceptance_by_category{place.option}",
    )


def _counted(counts: Mapping[str, Any]) -> str:
    """Returns counts that are not 0 as "read 504, kept 503"; counts by reason stand beside them."""
    parts = {name: count for name, count in counts.items() if count and name != "bad"}
    parts |= counts.get("bad", {})
    return ", ".join(f"{name} {count}" for name, count in parts.items())


def _stage_line(name: str, figures: StageFigures) -> str:
    """Returns what a stage made, its speed, and its share of cached prompt tokens."""
    if not figures.num_rows:
        return f"{name}: nothing was missing"
    return (
        f"{name}: {figures.num_rows} rows in {figures.seconds:.0f} s, "
        f"{figures.tokens_per_second:.0f} output tokens/s, "
        f"{figures.usage.cache_hit_rate:.0%} of prompt tokens from the prefix cache, "
        f"last 5 % took {figures.tail_seconds:.1f} s"
    )


def trained(done: "Trained", place: Place) -> None:
    """Prints the checkpoint of each stage, and what to do next."""
    for stage, checkpoint in done.checkpoints.items():
        _line(
            f"{stage}: {checkpoint.status} after {checkpoint.num_steps} steps on "
            f"{checkpoint.num_rows} rows ({checkpoint.seconds:.0f} s); "
            f"{done.home}/{checkpoint.path}"
        )
        if checkpoint.reason:
            _line(f"  ended early: {checkpoint.reason}")
        for reason, count in done.left_out.get(stage, {}).items():
            _line(f"  left out: {count} rows, {reason}")
        if seconds := _seconds_a_step(json.loads(checkpoint.metrics)["log"]):
            _line(f"  {seconds}")
    _line(
        f"trained now: {done.num_trained} of {len(done.checkpoints)} stages",
        f"next: precept ask rewards{place.option}; precept ask ancestry{place.option}",
    )


def _seconds_a_step(log: Sequence[dict[str, float]]) -> str | None:
    """Returns where the time of a step of reinforcement learning went; None without such steps."""
    steps = [entry for entry in log if "seconds/judge" in entry]
    if not steps:
        return None
    parts = ("rollout", "judge", "update")
    means = {part: sum(step[f"seconds/{part}"] for step in steps) / len(steps) for part in parts}
    whole = sum(means.values())
    listed = ", ".join(f"{part} {seconds:.1f}" for part, seconds in means.items())
    waiting = means["judge"] / whole
    return f"{whole:.1f} s a step: {listed}; {waiting:.0%} of it waiting for the judge"


def evaluated(done: "Evaluated", place: Place) -> None:
    """Prints the arms side by side: a row per metric, with the interval of its mean."""
    for suite in dict.fromkeys(row["suite"] for row in done.table):
        console().print(_suite_grid(suite, [row for row in done.table if row["suite"] == suite]))
    whole = [row for row in done.table if row["slice"] == "all"]
    for arm in dict.fromkeys(row["arm"] for row in whole):
        if count := max(row["num_unread"] for row in whole if row["arm"] == arm):
            _line(f"{arm}: {count} answers have no grade")
    _suites(done.suites)
    if done.is_untrained:
        _line(
            "the warehouse has no training of this recipe with these settings, so the base model "
            f"stands alone: run precept train {shlex.quote(place.recipe)}{place.option}"
        )
    _line(
        f"answers made: {done.num_answered}, models loaded: {done.models_loaded}",
        f"next: precept report {done.run_id[:8]}{place.option}",
    )


def _suites(figures: Mapping[str, SuiteFigures]) -> None:
    """Prints what became of the rows of each suite, and those that disagree."""
    for suite, counts in figures.items():
        _line(f"suite {suite}: {counts.in_words}")
        for conflict in counts.conflicts[:_MOST_CONFLICTS]:
            _line(f"  not asked, because rows disagree: {conflict}")
        if (rest := len(counts.conflicts) - _MOST_CONFLICTS) > 0:
            _line(f"  and {rest} more conflicts, which the report lists")


def _suite_grid(suite: str, rows: Sequence[dict[str, Any]]) -> Grid:
    """Returns the metrics of one suite, an arm a column."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    grid = Grid(title=f"{suite}: mean [95 % interval over prompts]", title_justify="left")
    for name in ("metric", "of", "by"):
        grid.add_column(name)
    for name in (*arms, "prompts"):
        grid.add_column(name, justify="right")
    by_metric: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        key = (row["metric"], row["slice"], row["grader"])
        by_metric.setdefault(key, {})[row["arm"]] = row
    for key, by_arm in by_metric.items():
        prompts = sorted({row["num_prompts"] for row in by_arm.values()})
        cells = [_interval(by_arm.get(arm)) for arm in arms]
        grid.add_row(*key, *cells, " or ".join(map(str, prompts)))
    return grid


def _interval(row: dict[str, Any] | None) -> str:
    if row is None or row["mean"] is None:
        return ""
    if row["low"] is None:
        return f"{row['mean']:.3f}"
    return f"{row['mean']:.3f}\n[{row['low']:.2f}–{row['high']:.2f}]"


def calibrated(done: "Calibrated", place: Place) -> None:
    """Prints precision and recall of the filter by k and threshold, and the best threshold."""
    for grader, gold in dict.fromkeys((row["grader"], row["gold"]) for row in done.table):
        rows = [row for row in done.table if (row["grader"], row["gold"]) == (grader, gold)]
        title = f"{grader} against {gold}: precision and, below it, recall of what it accepts"
        console().print(_calibration_grid(title, rows))
    _suites(done.suites)
    if best := done.best:
        _line(
            f"of {best['num_answers']} answers {best['num_gold']} are right; threshold "
            f"{best['threshold']:g} has the highest F1 at k = {best['k']}: {best['f1']:.3f}",
            f"next: precept report {done.run_id[:8]}{place.option}",
        )


def _calibration_grid(title: str, rows: Sequence[dict[str, Any]]) -> Grid:
    """Returns precision and recall, a threshold a column and a number of judge samples a row."""
    thresholds = sorted({row["threshold"] for row in rows})
    grid = Grid(title=title, title_justify="left")
    grid.add_column("k", justify="right")
    for threshold in thresholds:
        grid.add_column(f"from {threshold:g}", justify="right")
    by_cell = {(row["k"], row["threshold"]): row for row in rows}
    for k in sorted({row["k"] for row in rows}):
        cells = [by_cell.get((k, threshold)) for threshold in thresholds]
        grid.add_row(str(k), *(_precision_recall(cell) for cell in cells))
    return grid


def _precision_recall(row: dict[str, Any] | None) -> str:
    if row is None or row["precision"] is None or row["recall"] is None:
        return ""
    return f"{row['precision']:.3f}\n{row['recall']:.3f}"


def compared(found: "Compared", *, as_json: bool) -> None:
    """Prints how two runs differ: settings, rows, metrics."""
    if as_json:
        print(json.dumps(asdict(found), default=str))
        return
    for title, rows in (
        ("What was asked differently", found.settings),
        ("What was made", found.counts),
        ("Metrics: B less A [95 % interval over prompts, paired]", found.metrics),
    ):
        if rows:
            table(pa.table(_columns(rows)), as_json=False, title=title)
        else:
            console().print(f"{title}: nothing to tell", highlight=False)


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Returns rows of mixed values as columns; a column that is not all numbers becomes text."""
    columns: dict[str, list[Any]] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        whole = all(one is None or type(one) is int for one in values)
        real = all(one is None or type(one) is float for one in values)
        columns[name] = values if whole or real else ["" if v is None else str(v) for v in values]
    return columns


def aligned(done: "Aligned", place: Place) -> None:
    """Prints the outcome of a whole run, part by part."""
    refreshed(done.refreshed, place)
    if done.trained:
        trained(done.trained, place)
    if done.evaluated:
        evaluated(done.evaluated, place)


def estimated(estimate: "Estimate", place: Place) -> None:
    """Prints what a refresh would make, as a list."""
    print(estimate.as_markdown())


def _chain(row: dict[str, Any]) -> Panel:
    scores = ", ".join(f"{score:g}" for score in row["scores"])
    parts = [
        Text.assemble(("reasoning  ", "bold"), row["reasoning"]),
        Text.assemble(("answer     ", "bold"), row["answer"]),
        Text.assemble(("cites      ", "bold"), ", ".join(row["cited"])),
        Text.assemble(("scores     ", "bold"), f"{scores} (the lowest counts)"),
    ]
    # The prompt stays folded: it may be harmful, and nobody asked to read it.
    shown_by = f"precept show {row['completion_id'][:12]}"
    title = f"accepted, category {row['category']}; with its prompt: {shown_by}"
    return Panel(Group(*parts), title=title, title_align="left")


def status(home: Home, *, as_json: bool) -> None:
    """Prints the rows of each table, the last runs, and the engines in progress."""
    connection = connect(home)
    counts = [{"table": name, "num_rows": n} for name, n in count_rows(connection).items()]
    is_busy = is_locked(home)
    runs = look_up(connection, "latest_runs", count=5)
    for position, run in enumerate(runs):
        if run["status"] == "running" and home.is_local and not (is_busy and position == 0):
            run["status"] = "interrupted"
        run["started_at"] = f"{run['started_at']:%Y-%m-%d %H:%M:%S}"
    engines = _live_engines(home) if is_busy else []
    unread = [asdict(stray) for stray in unread_files(connection)]
    if as_json:
        shown = {"tables": counts, "runs": runs, "engines": engines, "writing": is_busy}
        shown["unread_files"] = unread
        print(json.dumps(shown, default=str))
        return
    table(pa.Table.from_pylist(counts), as_json=False, title=f"Warehouse {home.url}")
    if runs:
        table(pa.Table.from_pylist(runs), as_json=False, title="Last runs")
    if unread:
        title = "Not read; precept doctor --mend sets them aside"
        table(pa.Table.from_pylist(unread), as_json=False, title=title)
    for engine in engines:
        _line(
            f"engine {engine['pid']}: {engine['running']} sequences in progress, "
            f"{engine['output_tokens']} tokens so far"
        )


def _live_engines(home: Home) -> list[dict[str, Any]]:
    """Returns the usage that engines wrote within the last 15 seconds."""
    return [
        {"pid": path.stem, **json.loads(path.read_text())}
        for path in sorted(Path(home.root).glob("engines/*/*.json"))
        if path.stat().st_mtime > time.time() - 15
    ]


def row(home: Home, row_id: str, *, as_json: bool) -> None:
    """Prints one completion, prompt or spec whole; the first digits of its id are enough."""
    found = find_row(connect(home), row_id)
    if as_json:
        others: dict[str, dict[str, Any]] = {
            "completions": {"prompt": [found.prompt] if found.prompt else []}
            | {"judgements": found.judgements},
            "prompts": {"completions": found.completions},
            "specs": {},
        }
        print(json.dumps({**found.row, **others[found.kind]}, default=str, ensure_ascii=False))
    elif found.kind == "completions":
        _completion(found)
    elif found.kind == "prompts":
        _turns(found.row)
        table(_as_table(found.completions), as_json=False, title="Completions")
    else:
        print(found.row["text"])


def _completion(found: FoundRow) -> None:
    """Prints a completion with its prompt, and its judgements as a table."""
    completion = found.row
    if found.prompt:
        _turns(found.prompt)
    for part in ("reasoning", "answer"):
        console().print(Panel(Text(completion[part]), title=part, title_align="left"))
    cited = ", ".join(completion["cited"]) or "no rule"
    _line(
        f"{completion['status']} {completion['reason'] or ''}; cites {cited}; "
        f"{completion['model']}; spec {completion['spec_id'][:12]}"
    )
    table(_as_table(found.judgements), as_json=False, title="Judgements")


def _turns(prompt: Mapping[str, Any]) -> None:
    """Prints the turns of a prompt, a panel each."""
    for turn in prompt["messages"]:
        console().print(Panel(Text(turn["content"]), title=turn["role"], title_align="left"))


def _as_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([dict(row) for row in rows])


def checks(found: Sequence[Any], *, as_json: bool) -> None:
    """Prints the checks of doctor, a line each."""
    if as_json:
        print(json.dumps([{"name": c.name, "ok": c.ok, "found": c.found} for c in found]))
        return
    for check in found:
        mark = Text("ok   ", style="green") if check.ok else Text("fault", style="red")
        line = Text.assemble(mark, f"  {check.name:12} {check.found}")
        console().print(line, soft_wrap=True)
        if not check.ok:
            console().print(Text(f"       {'':12} {check.remedy}"), soft_wrap=True)
