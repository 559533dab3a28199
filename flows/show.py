"""What the command line prints: tables, one row whole, a refresh's outcome, a preview."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table as Grid
from rich.text import Text

from flows.lock import is_locked
from flows.recipe import Recipe
from flows.run import Refreshed
from specs.prompts import Message, generator_messages, judge_messages, load_template
from tasks.data.sources import read_source
from tasks.engine.requests import EngineConfig
from warehouse.catalog import ask, connect
from warehouse.home import Home
from warehouse.tables import TABLES

if TYPE_CHECKING:
    from flows.align import Aligned
    from flows.calibrate import Calibrated
    from flows.evaluate import Evaluated
    from flows.train import Trained
    from warehouse.reports.compare import Compared

_LONGEST_CELL = 100


def table(data: pa.Table, *, as_json: bool, title: str | None = None) -> None:
    """Rows as a table, long text cut; as JSON, one object a row and nothing cut."""
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
    _console().print(grid)


def _console() -> Console:
    """The terminal, or plain text of a fixed width where the output goes elsewhere."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def _cell(value: Any) -> Text:
    if isinstance(value, list):
        value = ", ".join(str(item) for item in value)
    text = "" if value is None else str(value)
    return Text(text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…")


def refreshed(done: Refreshed, *, recipe: str, home: str | None) -> None:
    """The funnel, one accepted chain of thought, where things lie, and what to do next."""
    console = _console()
    connection = connect(Home(done.home))
    table(pa.Table.from_pylist(done.funnel), as_json=False, title="Funnel")
    for one in done.figures.get("damaged", []):
        console.print(f"set aside: {one['path']} ({one['reason']})", highlight=False)
    for source, counts in done.figures.get("collect", {}).items():
        told = {key: count for key, count in counts.items() if count and key != "bad"}
        told |= counts.get("bad", {})
        listed = ", ".join(f"{key} {count}" for key, count in told.items())
        console.print(f"source {source}: {listed}", highlight=False)
    if sorted_out := done.figures.get("assign", {}).get("statuses"):
        listed = ", ".join(f"{status} {count}" for status, count in sorted_out.items())
        console.print(f"categories chosen by the judge model: {listed}", highlight=False)
    accepted = ask(connection, "accepted_chains").slice(0, 1).to_pylist()
    if accepted:
        console.print(_chain(accepted[0]))
    made = {name: done.figures.get(name, {}) for name in ("generate", "judge")}
    for name, figures in made.items():
        if figures.get("rows"):
            console.print(
                f"{name}: {figures['rows']} rows in {figures['seconds']:.0f} s, "
                f"{figures['output_tokens_per_second']} output tokens/s, "
                f"{figures['cache_hit_rate']:.0%} of prompt tokens from the prefix cache, "
                f"last 5 % took {figures['tail_seconds']:.1f} s",
                highlight=False,
            )
        else:
            console.print(f"{name}: nothing was missing", highlight=False)
    console.print(
        f"examples: {done.num_examples} rows in set {done.set_id}\n"
        f"models loaded: {done.models_loaded}\n"
        f"warehouse: {done.home} (tables {', '.join(TABLES)})\n"
        f"next: precept ask acceptance_by_category{_option(home)}",
        highlight=False,
        soft_wrap=True,
    )


def trained(done: "Trained", *, home: str | None, as_json: bool) -> None:
    """The checkpoint of each stage, and what to do next."""
    if as_json:
        print(json.dumps(asdict(done), default=str))
        return
    console = _console()
    for stage, one in done.checkpoints.items():
        console.print(
            f"{stage}: {one.status} after {one.num_steps} steps on {one.num_rows} rows "
            f"({one.seconds:.0f} s); {done.home}/{one.path}",
            highlight=False,
            soft_wrap=True,
        )
        if one.reason:
            console.print(f"  ended early: {one.reason}", highlight=False, soft_wrap=True)
        if told := _seconds_a_step(json.loads(one.metrics)["log"]):
            console.print(f"  {told}", highlight=False, soft_wrap=True)
    console.print(
        f"trained now: {done.num_trained} of {len(done.checkpoints)} stages\n"
        f"next: precept ask rewards{_option(home)}; precept ask ancestry{_option(home)}",
        highlight=False,
        soft_wrap=True,
    )


def _seconds_a_step(log: Sequence[dict[str, float]]) -> str | None:
    """Where the time of a step of reinforcement learning goes."""
    steps = [entry for entry in log if "seconds/judge" in entry]
    if not steps:
        return None
    parts = ("rollout", "judge", "update")
    means = {part: sum(step[f"seconds/{part}"] for step in steps) / len(steps) for part in parts}
    whole = sum(means.values())
    listed = ", ".join(f"{part} {seconds:.1f}" for part, seconds in means.items())
    waiting = means["judge"] / whole
    return f"{whole:.1f} s a step: {listed}; {waiting:.0%} of it waiting for the judge"


def evaluated(done: "Evaluated", *, home: str | None, as_json: bool) -> None:
    """The arms side by side: a row for each metric, with the interval of its mean."""
    if as_json:
        print(json.dumps(asdict(done), default=str))
        return
    console = _console()
    arms = list(dict.fromkeys(row["arm"] for row in done.table))
    for suite in dict.fromkeys(row["suite"] for row in done.table):
        grid = Grid(title=f"{suite}: mean [95 % interval over prompts]", title_justify="left")
        for name in ("metric", "of", "by"):
            grid.add_column(name)
        for name in (*arms, "prompts"):
            grid.add_column(name, justify="right")
        cells: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
        for row in done.table:
            if row["suite"] == suite:
                key = (row["metric"], row["slice"], row["grader"])
                cells.setdefault(key, {})[row["arm"]] = row
        for key, found in cells.items():
            prompts = sorted({row["num_prompts"] for row in found.values()})
            shown = [_interval(found.get(arm)) for arm in arms]
            grid.add_row(*key, *shown, " or ".join(map(str, prompts)))
        console.print(grid)
    unread = {row["arm"]: row["num_unread"] for row in done.table if row["slice"] == "all"}
    for arm, count in unread.items():
        if count:
            console.print(f"{arm}: {count} answers have no grade", highlight=False)
    console.print(
        f"answers made: {done.num_answered}, models loaded: {done.models_loaded}\n"
        f"next: precept report {done.run_id[:8]}{_option(home)}",
        highlight=False,
        soft_wrap=True,
    )


def _interval(row: dict[str, Any] | None) -> str:
    if row is None or row["mean"] is None:
        return ""
    if row["low"] is None:
        return f"{row['mean']:.3f}"
    return f"{row['mean']:.3f}\n[{row['low']:.2f}–{row['high']:.2f}]"


def calibrated(done: "Calibrated", *, home: str | None, as_json: bool) -> None:
    """Precision and recall of the filter by k and threshold, and the threshold to take."""
    if as_json:
        print(json.dumps({**asdict(done), "best": done.best}, default=str))
        return
    console = _console()
    for grader, gold in dict.fromkeys((row["grader"], row["gold"]) for row in done.table):
        rows = [row for row in done.table if (row["grader"], row["gold"]) == (grader, gold)]
        thresholds = sorted({row["threshold"] for row in rows})
        grid = Grid(
            title=f"{grader} against {gold}: precision and, below it, recall of what it accepts",
            title_justify="left",
        )
        grid.add_column("k", justify="right")
        for threshold in thresholds:
            grid.add_column(f"from {threshold:g}", justify="right")
        found = {(row["k"], row["threshold"]): row for row in rows}
        for k in sorted({row["k"] for row in rows}):
            cells = [found.get((k, threshold)) for threshold in thresholds]
            grid.add_row(str(k), *(_precision_recall(cell) for cell in cells))
        console.print(grid)
    if best := done.best:
        console.print(
            f"of {best['num_answers']} answers {best['num_gold']} are right; threshold "
            f"{best['threshold']:g} has the highest F1 at k = {best['k']}: {best['f1']:.3f}\n"
            f"next: precept report {done.run_id[:8]}{_option(home)}",
            highlight=False,
            soft_wrap=True,
        )


def _precision_recall(row: dict[str, Any] | None) -> str:
    if row is None or row["precision"] is None or row["recall"] is None:
        return ""
    return f"{row['precision']:.3f}\n{row['recall']:.3f}"


def compared(found: "Compared", *, as_json: bool) -> None:
    """What two runs did differently, and what came of it."""
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
            _console().print(f"{title}: nothing to tell", highlight=False)


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows of mixed values as columns: what is no number becomes text."""
    columns: dict[str, list[Any]] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        whole = all(one is None or type(one) is int for one in values)
        real = all(one is None or type(one) is float for one in values)
        columns[name] = values if whole or real else ["" if v is None else str(v) for v in values]
    return columns


def aligned(done: "Aligned", *, recipe: str, home: str | None, as_json: bool) -> None:
    """What a whole run came to, part by part."""
    if as_json:
        print(json.dumps(asdict(done), default=str))
        return
    refreshed(done.refreshed, recipe=recipe, home=home)
    if done.trained:
        trained(done.trained, home=home, as_json=False)
    if done.evaluated:
        evaluated(done.evaluated, home=home, as_json=False)


def _option(home: str | None) -> str:
    """How a command is told the home."""
    return f" --home {home}" if home else ""


def _chain(row: dict[str, Any]) -> Panel:
    scores = ", ".join(f"{score:g}" for score in row["scores"])
    parts = [
        Text.assemble(("reasoning  ", "bold"), row["reasoning"]),
        Text.assemble(("answer     ", "bold"), row["answer"]),
        Text.assemble(("cites      ", "bold"), ", ".join(row["cited"])),
        Text.assemble(("scores     ", "bold"), f"{scores} (the lowest counts)"),
    ]
    # The prompt stays folded: it may be one that nobody wants to read unasked.
    shown_by = f"precept show {row['completion_id'][:12]}"
    title = f"accepted, category {row['category']}; with its prompt: {shown_by}"
    return Panel(Group(*parts), title=title, title_align="left")


def status(home: Home, *, as_json: bool) -> None:
    """Rows of each table, the last runs, and engines at work now."""
    connection = connect(home)
    counts = [{"table": name, "num_rows": _count(connection, f"{name}_all")} for name in TABLES]
    busy = is_locked(home)
    runs = connection.sql(
        "SELECT started_at, recipe, status, seconds, run_id, error "
        "FROM runs ORDER BY started_at DESC LIMIT 5"
    ).to_arrow_table()
    rows = runs.to_pylist()
    for position, row in enumerate(rows):
        if row["status"] == "running" and home.is_local and not (busy and position == 0):
            row["status"] = "interrupted"
        row["started_at"] = f"{row['started_at']:%Y-%m-%d %H:%M:%S}"
    engines = _live_engines(home) if busy else []
    if as_json:
        found = {"tables": counts, "runs": rows, "engines": engines, "writing": busy}
        print(json.dumps(found, default=str))
        return
    table(pa.Table.from_pylist(counts), as_json=False, title=f"Warehouse {home.url}")
    if rows:
        table(pa.Table.from_pylist(rows), as_json=False, title="Last runs")
    for engine in engines:
        _console().print(
            f"engine {engine['pid']}: {engine['running']} sequences at work, "
            f"{engine['output_tokens']} tokens so far",
            highlight=False,
        )


def _count(connection: Any, name: str) -> int:
    [(count,)] = connection.execute(f"SELECT count(*) FROM {name}").fetchall()
    return int(count)


def _live_engines(home: Home) -> list[dict[str, Any]]:
    """What engines of the run at work last wrote of themselves."""
    import time
    from pathlib import Path

    found = []
    for path in sorted(Path(home.root).glob("engines/*/*.json")):
        if path.stat().st_mtime > time.time() - 15:
            found.append({"pid": path.stem, **json.loads(path.read_text())})
    return found


def row(home: Home, row_id: str, *, as_json: bool) -> None:
    """One completion, prompt or spec whole; a few first digits of its id are enough."""
    connection = connect(home)
    for name, key in (("completions", "completion_id"), ("prompts", "prompt_id")):
        found = connection.sql(
            f"SELECT * FROM {name}_all WHERE starts_with({key}, ?) LIMIT 2", params=[row_id]
        ).to_arrow_table()
        if found.num_rows > 1:
            raise ValueError(f"several {name} begin with {row_id!r}; give more digits")
        if found.num_rows == 1 and name == "completions":
            _completion(connection, found.to_pylist()[0], as_json=as_json)
            return
        if found.num_rows == 1:
            _prompt(connection, found.to_pylist()[0], as_json=as_json)
            return
    specs = connection.sql(
        "SELECT * FROM specs_all WHERE starts_with(spec_id, ?) LIMIT 1", params=[row_id]
    ).to_arrow_table()
    if specs.num_rows == 0:
        raise ValueError(
            f"no completion, prompt or spec begins with {row_id!r} in {home.url}; "
            "look ids up with 'precept ask worst' or 'precept sql'"
        )
    if as_json:
        table(specs, as_json=True)
    else:
        print(specs.to_pylist()[0]["text"])


def _completion(connection: Any, completion: dict[str, Any], *, as_json: bool) -> None:
    prompt = connection.sql(
        "SELECT * FROM prompts_all WHERE prompt_id = ?", params=[completion["prompt_id"]]
    ).to_arrow_table()
    verdicts = connection.sql(
        "SELECT sample_index, status, score, agrees, rationale FROM judgements_all "
        "WHERE completion_id = ? ORDER BY judging_id, sample_index",
        params=[completion["completion_id"]],
    ).to_arrow_table()
    if as_json:
        whole = {
            **completion,
            "prompt": prompt.to_pylist()[:1],
            "judgements": verdicts.to_pylist(),
        }
        print(json.dumps(whole, default=str, ensure_ascii=False))
        return
    console = _console()
    for turn in prompt.to_pylist()[0]["messages"] if prompt.num_rows else []:
        console.print(Panel(Text(turn["content"]), title=turn["role"], title_align="left"))
    console.print(Panel(Text(completion["reasoning"]), title="reasoning", title_align="left"))
    console.print(Panel(Text(completion["answer"]), title="answer", title_align="left"))
    cited = ", ".join(completion["cited"]) or "no rule"
    console.print(
        f"{completion['status']} {completion['reason'] or ''}; cites {cited}; "
        f"{completion['model']}; spec {completion['spec_id'][:12]}",
        highlight=False,
        soft_wrap=True,
    )
    table(verdicts, as_json=False, title="Judgements")


def _prompt(connection: Any, prompt: dict[str, Any], *, as_json: bool) -> None:
    completions = connection.sql(
        "SELECT c.completion_id, c.status, v.verdict, v.min_score, c.cited "
        "FROM completions_all AS c LEFT JOIN verdicts AS v USING (completion_id) "
        "WHERE c.prompt_id = ? ORDER BY c.sample_index",
        params=[prompt["prompt_id"]],
    ).to_arrow_table()
    if as_json:
        whole = {**prompt, "completions": completions.to_pylist()}
        print(json.dumps(whole, default=str, ensure_ascii=False))
        return
    for turn in prompt["messages"]:
        _console().print(Panel(Text(turn["content"]), title=turn["role"], title_align="left"))
    table(completions, as_json=False, title="Completions")


def preview(recipe: Recipe, *, count: int) -> None:
    """The first prompts as the writer and the judge are shown them, with token counts."""
    pack = recipe.load_pack()
    count_tokens = _token_counter(recipe.engine)
    console = _console()
    shown = 0
    for source in recipe.sources:
        for candidate in read_source(source):
            if shown == count:
                return
            if candidate.fault:
                continue
            shown += 1
            known = [name for name in candidate.categories if name in pack.policies]
            if not known:
                known = [next(iter(pack.policies))]
                console.print(f"no category yet; shown as {known[0]}", highlight=False)
            spec = pack.spec(known)
            turns: list[Message] = candidate.messages
            writer = load_template("generator", recipe.generate.template)
            judge = load_template("judge", recipe.judge.template)
            shown_to = {
                "writer": generator_messages(writer, turns, spec=spec),
                "judge": judge_messages(
                    judge, turns, spec=spec, answer="(the answer)", reasoning="(the reasoning)"
                ),
            }
            for reader, messages in shown_to.items():
                _print_messages(console, reader, messages, spec.text, count_tokens)


def _print_messages(
    console: Console, reader: str, messages: Sequence[Message], spec: str, count_tokens: Any
) -> None:
    total = sum(count_tokens(message["content"]) for message in messages)
    parts: list[Text] = []
    for message in messages:
        before, mark, after = message["content"].partition(spec)
        text = Text.assemble((f"{message['role']}\n", "bold"), before)
        if mark:
            text.append(spec, style="cyan")
            text.append(f"\n[spec ends here: {count_tokens(before + spec)} tokens]", style="red")
        text.append(after)
        parts.append(text)
    title = f"to the {reader}, {total} tokens"
    console.print(Panel(Group(*parts), title=title, title_align="left"))


def _token_counter(engine: EngineConfig) -> Any:
    """Counts tokens by the model's own tokenizer, which must be at hand."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(engine.model_path, revision=engine.revision)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no tokenizer for {engine.model}: {str(error).splitlines()[0]}; "
            "download the model first, or give a local folder as engine.model"
        ) from error
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def checks(found: Sequence[Any], *, as_json: bool) -> None:
    """What doctor found, a line each."""
    if as_json:
        print(json.dumps([{"name": c.name, "ok": c.ok, "found": c.found} for c in found]))
        return
    for check in found:
        mark = Text("ok   ", style="green") if check.ok else Text("fault", style="red")
        line = Text.assemble(mark, f"  {check.name:12} {check.found}")
        _console().print(line, soft_wrap=True)
        if not check.ok:
            _console().print(Text(f"       {'':12} {check.remedy}"), soft_wrap=True)
