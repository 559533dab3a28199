"""Prints tables and the outcomes of flows on the terminal."""

import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from flows import terminal
from flows.run import Refreshed
from flows.terminal import Column
from tasks.evaluation.rows import SuiteFigures
from tasks.stage import StageFigures
from tasks.training.monitor import step_seconds
from warehouse.catalog import ask, connect
from warehouse.characters import json_text, one_line
from warehouse.home import Home
from warehouse.tables import ID_LENGTH, TABLES

if TYPE_CHECKING:
    from flows.align import Aligned
    from flows.calibrate import Calibrated
    from flows.dry_run import DryRun
    from flows.estimate import Estimate
    from flows.evaluate import Evaluated
    from flows.fill import Filled
    from flows.train import Trained

SHORT_ID = 12
"""Digits of an id in a table; `show` takes them for the whole."""
_ID = re.compile(rf"[0-9a-f]{{{ID_LENGTH}}}")
_MOST_CONFLICTS = 5


def table(data: pa.Table, *, title: str | None = None) -> None:
    """Prints rows with the first digits of their ids."""
    columns = [
        Column(name, is_number=_is_number(column.type))
        for name, column in zip(data.column_names, data.columns, strict=True)
    ]
    cells = [_cells(column.to_pylist()) for column in data.columns]
    terminal.table(columns, list(zip(*cells, strict=True)), title=title)


def _is_number(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return any(test(kind) for test in tests)


def _cells(values: Sequence[Any]) -> list[str]:
    """Returns the texts of a column; if all are ids, their first digits where those differ."""
    given = [value for value in values if value is not None]
    if not all(isinstance(value, str) and _ID.fullmatch(value) for value in given):
        return [value_text(value) for value in values]
    if len({value[:SHORT_ID] for value in given}) < len(set(given)):
        return [value_text(value) for value in values]
    return [value_text(value)[:SHORT_ID] for value in values]


def value_text(value: Any) -> str:
    """Returns a value as people read it; a dash for null."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list) and not any(isinstance(one, dict | list) for one in value):
        return ", ".join(map(value_text, value))
    return json_text(value) if isinstance(value, dict | list) else str(value)


@dataclass(frozen=True, slots=True)
class Place:
    """A recipe and a warehouse as the user typed them, for the commands that are suggested."""

    recipe: str
    home: str | None

    @property
    def option(self) -> str:
        """The --home option to print in a suggested command."""
        return terminal.home_option(self.home)


def as_json(outcome: Any) -> None:
    """Prints an outcome as one JSON object: its fields, and `best` if it has one."""
    more = {"best": outcome.best} if hasattr(outcome, "best") else {}
    terminal.as_json({**asdict(outcome), **more})


def refreshed(done: Refreshed, place: Place) -> None:
    """Prints the funnel, one accepted completion, usage, and what to do next."""
    figures = done.figures
    table(pa.Table.from_pylist(done.funnel), title="Funnel")
    for shard in figures.damaged:
        terminal.line(f"set aside: {shard.path} ({shard.reason})")
    for source, counts in figures.sources.items():
        terminal.line(f"source {source}: {_counted(asdict(counts))}")
    for source, notes in figures.notes.items():
        terminal.line(f"source {source}: {notes}")
    if conflicts := figures.conflicts:
        terminal.lines(
            f"labelled in different ways: {conflicts.num_prompts} prompts", *conflicts.named
        )
    if figures.assigned:
        terminal.line(f"categories chosen by the judge model: {_counted(figures.assigned)}")
    accepted = ask(connect(Home(done.home)), "accepted_chains").slice(0, 1).to_pylist()
    if accepted:
        _print_chain(accepted[0])
    for name in ("generate", *figures.judge_stages):
        terminal.line(_stage_line(name, figures.stages.get(name, StageFigures())))
    for judge, fault in figures.silent_judges.items():
        terminal.line(
            f"judge {judge} could not be asked: {one_line(fault)}; completions without its scores "
            "are unjudged, and the next refresh asks it again"
        )
    for monitored in figures.monitors.values():
        if monitored.flagged:
            terminal.line(
                f"monitors flag, of {monitored.num_read} reasonings: "
                f"{_counted(monitored.flagged)}; see precept ask flagged{place.option}"
            )
    if done.shortfall:
        terminal.line(done.shortfall)
    terminal.lines(
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


def _endpoint_words(figures: StageFigures) -> str:
    """Returns what a stage made by an endpoint, what it cost, and what the server could not do."""
    usage = figures.usage
    parts = [
        f"{figures.num_rows} rows in {figures.seconds:.0f} s by {usage.requests} requests",
        f"{usage.prompt_tokens} prompt and {usage.output_tokens} output tokens",
        *([f"cost {usage.cost:.4g}"] if usage.cost else []),
        *([f"{usage.unmetered} replies without usage"] if usage.unmetered else []),
    ]
    return "; ".join([", ".join(parts), *usage.notes])


def _stage_line(name: str, figures: StageFigures) -> str:
    """Returns what a stage made, its speed, and its share of cached prompt tokens."""
    if not figures.num_rows:
        return f"{name}: nothing was missing"
    if figures.usage.requests:
        return f"{name}: {_endpoint_words(figures)}"
    return (
        f"{name}: {figures.num_rows} rows in {figures.seconds:.0f} s, "
        f"{figures.tokens_per_second:.0f} output tokens/s, "
        f"{figures.usage.cache_hit_rate:.0%} of prompt tokens from the prefix cache, "
        f"last 5 % took {figures.tail_seconds:.1f} s"
    )


def trained(done: "Trained", place: Place) -> None:
    """Prints the checkpoint of each stage, and what to do next."""
    for stage, checkpoint in done.checkpoints.items():
        terminal.line(
            f"{stage}: {checkpoint.status} after {checkpoint.num_steps} steps on "
            f"{checkpoint.num_rows} rows ({checkpoint.seconds:.0f} s); "
            f"{done.home}/{checkpoint.path}"
        )
        for note in done.notes(stage):
            terminal.line(f"  {note}")
        if seconds := _seconds_a_step(json.loads(checkpoint.metrics)["log"]):
            terminal.line(f"  {seconds}")
    terminal.lines(
        f"trained now: {done.num_trained} of {len(done.checkpoints)} stages",
        f"next: precept ask rewards{place.option}; precept ask ancestry{place.option}",
    )


def _seconds_a_step(log: Sequence[Mapping[str, float]]) -> str | None:
    """Returns where the time of a step of reinforcement learning went; None without such steps."""
    means = step_seconds(log)
    if not means:
        return None
    whole = sum(means.values())
    listed = ", ".join(f"{part} {seconds:.1f}" for part, seconds in means.items())
    return f"{whole:.1f} s a step: {listed}; {means['judge'] / whole:.0%} waiting for the judge"


def evaluated(done: "Evaluated", place: Place) -> None:
    """Prints the arms side by side: a row per metric, with the interval of its mean."""
    for suite in dict.fromkeys(row["suite"] for row in done.table):
        _print_suite(suite, [row for row in done.table if row["suite"] == suite])
    whole = [row for row in done.table if row["slice"] == "all"]
    for arm in dict.fromkeys(row["arm"] for row in whole):
        if count := max(row["num_unread"] for row in whole if row["arm"] == arm):
            terminal.line(f"{arm}: {count} answers have no grade")
    _print_suites(done.suites)
    if done.is_untrained:
        terminal.line(
            "the warehouse has no training of this recipe with these settings, so the base model "
            f"stands alone: run precept train {shlex.quote(place.recipe)}{place.option}"
        )
    terminal.lines(
        f"answers made: {done.num_answered}, models loaded: {done.models_loaded}",
        f"next: precept report {done.run_id[:8]}{place.option}",
    )


def _print_suites(figures: Mapping[str, SuiteFigures]) -> None:
    """Prints what became of the rows of each suite, and those that disagree."""
    for suite, counts in figures.items():
        terminal.line(f"suite {suite}: {counts.in_words}")
        for conflict in counts.conflicts[:_MOST_CONFLICTS]:
            terminal.line(f"  not asked, because rows disagree: {conflict}")
        if (rest := len(counts.conflicts) - _MOST_CONFLICTS) > 0:
            terminal.line(f"  and {rest} more conflicts, which the report lists")


def _print_suite(suite: str, rows: Sequence[dict[str, Any]]) -> None:
    """Prints the metrics of one suite, an arm a column."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    columns = [Column("metric"), Column("of"), Column("by")]
    columns += [Column(arm, is_number=True) for arm in (*arms, "prompts")]
    by_metric: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        key = (row["metric"], row["slice"], row["grader"])
        by_metric.setdefault(key, {})[row["arm"]] = row
    lines = []
    for key, by_arm in by_metric.items():
        prompts = sorted({row["num_prompts"] for row in by_arm.values()})
        cells = [_interval(by_arm.get(arm)) for arm in arms]
        lines.append([*map(one_line, key), *cells, " or ".join(map(str, prompts))])
    title = f"{suite}: mean [95 % interval over prompts]"
    terminal.table(columns, lines, title=title, stacked=True)


def _interval(row: dict[str, Any] | None) -> str:
    if row is None or row["mean"] is None:
        return ""
    if row["low"] is None:
        return f"{row['mean']:.3f}"
    return f"{row['mean']:.3f}\n[{row['low']:.2f}–{row['high']:.2f}]"


def calibrated(done: "Calibrated", place: Place) -> None:
    """Prints precision and recall of the filter by k and threshold, and what is recommended."""
    keys = [(row["grader"], row["criterion"], row["gold"]) for row in done.table]
    for key in dict.fromkeys(keys):
        grader, criterion, gold = key
        judge = f"{grader} on {criterion}" if criterion else grader
        title = f"{judge} against {gold}: precision and, below it, recall of what it accepts"
        _print_calibration(
            title, [row for row, own in zip(done.table, keys, strict=True) if own == key]
        )
    _print_suites(done.suites)
    if best := done.best:
        terminal.lines(
            f"of {best['num_answers']} answers {best['num_gold']} are right; "
            f"{one_line(best['grader'])} at threshold {best['threshold']:g} has the highest F1 at "
            f"k = {best['k']}: {best['f1']:.3f}",
            *(one.in_words for one in done.recommended),
            "next: precept "
            + (f"report {done.run_id[:8]}" if done.run_id else "ask review_agreement")
            + place.option,
        )


def _print_calibration(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Prints precision and recall, a threshold a column and a number of judge samples a row, with
    the output tokens that they cost an answer."""
    thresholds = sorted({row["threshold"] for row in rows})
    names = ["k", "tokens", *(f"from {threshold:g}" for threshold in thresholds)]
    by_cell = {(row["k"], row["threshold"]): row for row in rows}
    lines = []
    for k in sorted({row["k"] for row in rows}):
        cells = [by_cell.get((k, threshold)) for threshold in thresholds]
        tokens = next((row["tokens"] for row in rows if row["k"] == k), None)
        lines.append([str(k), value_text(tokens), *(_precision_recall(cell) for cell in cells)])
    columns = [Column(name, is_number=True) for name in names]
    terminal.table(columns, lines, title=title, stacked=True)


def _precision_recall(row: dict[str, Any] | None) -> str:
    if row is None or row["precision"] is None or row["recall"] is None:
        return ""
    return f"{row['precision']:.3f}\n{row['recall']:.3f}"


def filled(done: "Filled", place: Place) -> None:
    """Prints the rules that lacked prompts, what became of the drafts, and what to do next."""
    if done.rules:
        table(pa.Table.from_pylist([asdict(rule) for rule in done.rules]), title="Prompts of rules")
    elif done.num_hard == 0:
        terminal.line("no prompt to mine for these rules")
    else:
        terminal.line(f"no rule lacks prompts: each has {done.floor} or more")
    if done.statuses:
        terminal.line(f"drafts: {_counted(done.statuses)}")
    if done.faults:
        first, *others = done.faults
        more = f" (others: {len(others)}; see column reason of table drafts)" if others else ""
        terminal.line(f"error of a draft: {first}{more}")
    if left := done.counts.left_behind:
        terminal.line(f"drafts left out: {_counted(left)}")
    for reason, count in done.left_out.items():
        terminal.line(f"hard prompts left out: {count} {reason}")
    short = [f"{one.rule_id} ({one.after})" for one in done.rules if one.after < done.floor]
    if short:
        terminal.line(f"rules that still have fewer than {done.floor}: {', '.join(short)}")
    terminal.line(f"prompts added to {done.out}: {done.num_written}")
    if done.num_mislabelled:
        terminal.line(
            f"prompts in {done.out} with a label that the pack no longer gives: "
            f"{done.num_mislabelled}; change their ideal_response, or delete their lines"
        )
    if not done.is_source and done.num_written:
        source = ["[[sources]]", 'name = "fill"', f"path = {json.dumps(done.out)}"]
        keys = ("messages", "category", "ideal_response")
        terminal.lines(
            "put them into the recipe:", *source, *(f'{name} = "{name}"' for name in keys)
        )
    terminal.line(f"next: precept refresh {shlex.quote(place.recipe)}{place.option}")


def aligned(done: "Aligned", place: Place) -> None:
    """Prints the outcome of a whole run, part by part."""
    refreshed(done.refreshed, place)
    if done.trained:
        trained(done.trained, place)
    if done.evaluated:
        evaluated(done.evaluated, place)


def estimated(estimate: "Estimate", place: Place) -> None:
    """Prints what a refresh would make, as a list."""
    terminal.text(estimate.as_markdown())


def _print_chain(row: dict[str, Any]) -> None:
    """Prints an accepted completion, without its prompt: it may be harmful, and nobody asked."""
    scores = ", ".join(f"{score:g}" for score in row["scores"])
    shown_by = f"precept show {row['completion_id'][:SHORT_ID]}"
    terminal.heading(f"accepted, category {row['category']}; with its prompt: {shown_by}")
    terminal.fields(
        [
            ("reasoning", row["reasoning"]),
            ("answer", row["answer"]),
            ("cites", ", ".join(row["cited"])),
            ("scores", f"{scores} (the lowest counts)"),
        ]
    )


def checks(found: Sequence[Any], *, as_json: bool) -> None:
    """Prints the checks of doctor, a line each."""
    if as_json:
        terminal.as_json([{"name": c.name, "ok": c.ok, "found": c.found} for c in found])
        return
    for check in found:
        mark = ("ok   ", "green") if check.ok else ("fault", "red")
        terminal.line(mark, f"  {check.name:12} {check.found}")
        if not check.ok:
            terminal.line(f"       {'':12} {check.remedy}")


def dry_run(outcome: "DryRun", *, as_json: bool) -> None:
    """Prints the rows of each part of a dry run, and whether each option was exercised."""
    if as_json:
        terminal.as_json(asdict(outcome))
        return
    terminal.heading("Parts of the chain")
    for part in outcome.parts:
        mark = ("ok   ", "green") if part.ok else ("fault", "red")
        terminal.line(mark, f"  {part.name:12} {part.rows}")
    columns = [Column("option"), Column("here"), Column("why")]
    rows = [(option.key, option.outcome, option.why) for option in outcome.options]
    terminal.table(columns, rows, title="Options of the recipe")
    terminal.line(f"of {len(rows)} options: {_counted(Counter(row[1] for row in rows))}")
