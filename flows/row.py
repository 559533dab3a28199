"""Prints whatever has an id, whole: a row with its texts, and the rows that belong to it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from flows import page, terminal
from flows.show import SHORT_ID, table, value_text
from specs.parts import rule_text
from warehouse.catalog import connect
from warehouse.home import Home
from warehouse.rows import NOUNS, FoundRow, find_row

_TEXTS = ("text", "message", "reasoning", "answer", "rationale")
"""Columns that are printed below the others, in this order."""
_TABLES = ("completions", "answers", "stages", "rows")
"""Rows around a row that are printed as a table."""
_JSON = ("versions", "resolved_recipe", "figures", "config", "metrics")


def show_row(home: Home, row_id: str, *, with_prompt: bool, as_json: bool) -> None:
    """Prints what has an id, or what a model was asked for it; the first characters of the id are
    enough."""
    connection = connect(home)
    found = find_row(connection, row_id)
    if with_prompt:
        from flows.asked import asked_of, print_asked

        print_asked(asked_of(connection, home, found), found, as_json=as_json)
    elif as_json:
        terminal.as_json({**found.row, **found.related})
    else:
        print_row(found)


def print_row(found: FoundRow) -> None:
    """Prints what has an id, with the rows that belong to it."""
    if found.kind == "rules":
        _rule(found)
    elif found.kind == "specs":
        terminal.heading(f"spec {found.row_id}")
        terminal.text(found.row["text"])
    elif found.kind in page.KINDS:
        _page(found)
    else:
        _any(found)


def _page(found: FoundRow) -> None:
    """Prints what a model wrote on one page."""
    page.heading(found)
    terminal.fields(_standing(found) if found.kind == "completions" else page.standing(found))
    for row in (*found.related.get("prompt", ()), *found.related.get("case", ())):
        _chats(row)
    page.texts(found)
    page.lineage(found)
    told = (*_TEXTS, *page.SHOWN[found.kind])
    terminal.line("")
    terminal.heading("row")
    terminal.fields(_columns(found.row, told))


def _any(found: FoundRow) -> None:
    """Prints the chats and texts of a row, its columns, and the rows around it."""
    terminal.heading(f"{NOUNS[found.kind]} {found.row_id}")
    for row in (*found.related.get("prompt", ()), *found.related.get("case", ()), found.row):
        _chats(row)
    _texts(found.row)
    terminal.line("")
    terminal.fields(_columns(found.row, _TEXTS))
    for name, rows in found.related.items():
        if name in _TABLES:
            terminal.line("")
            table(pa.Table.from_pylist(_plain(rows)), title=name.capitalize())


def _columns(row: Mapping[str, Any], told: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the columns of a row but those that were told, and its chats."""
    return [
        (name, _column(name, value))
        for name, value in row.items()
        if name not in told and not _is_chat(value)
    ]


def _column(name: str, value: Any) -> str:
    """Returns a value of a row; JSON with a key a line, without the log of every step."""
    if name not in _JSON or not isinstance(value, str):
        return value_text(_scores(value))
    held = json.loads(value)
    if name == "metrics" and isinstance(held, dict) and "log" in held:
        steps = len(held.pop("log"))
        held["log"] = f"{steps} entries, which --json prints"
    return json.dumps(held, indent=2, ensure_ascii=False)


def _is_chat(value: Any) -> bool:
    return _holds_structs(value) and "role" in value[0]


def _holds_structs(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _chats(row: Mapping[str, Any]) -> None:
    """Prints the turns of each chat of a row, one that is told twice once."""
    chats = {name: value for name, value in row.items() if _is_chat(value)}
    if chats.get("original") == chats.get("messages"):
        chats.pop("original", None)
    for name, turns in chats.items():
        told = "" if name == "messages" else f" ({name})"
        for turn in turns:
            terminal.block(f"{turn['role']}{told}", turn["content"])
            if turn.get("tool_calls"):
                terminal.block(f"{turn['role']} calls tools{told}", turn["tool_calls"])


def _texts(row: Mapping[str, Any]) -> None:
    for name in _TEXTS:
        if row.get(name):
            terminal.block(name, row[name])


def _plain(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows without columns that are null or empty in all, and scores as "safe 1, right
    0.5"."""
    told = [
        name
        for name in (rows[0] if rows else ())
        if any(row[name] is not None and row[name] != [] for row in rows)
    ]
    return [{name: _scores(row[name]) for name in told} for row in rows]


def _scores(value: Any) -> Any:
    """Returns the scores of a grade in words, and any other value as it is."""
    if not _holds_structs(value):
        return value
    return ", ".join(" ".join(map(value_text, score.values())) for score in value)


def _standing(found: FoundRow) -> list[tuple[str, str]]:
    """Returns what became of a completion: its verdicts, and why it is not accepted."""
    said: list[tuple[str, str]] = []
    for prompt in found.related["prompt"]:
        said += [
            ("category", "+".join(prompt["categories"]) or "none"),
            ("ideal response", prompt["ideal_response"] or "nobody said"),
        ]
    for verdict in found.related["verdicts"]:
        said += [
            ("verdict", f"{verdict['verdict']}{_because(found, verdict)}"),
            ("threshold", f"{verdict['threshold']:g}"),
        ]
    if not found.related["verdicts"]:
        said.append(("verdict", "none: the latest run of no recipe wants this completion"))
    completion = found.row
    reason = f", {completion['reason']}" if completion["reason"] else ""
    said.append(("status", f"{completion['status']}{reason}"))
    for example in found.related["examples"][:1]:
        said.append(
            ("example", f"{example['status']} ({example['reason']}) in set {example['set_id']}")
        )
    return said


def _because(found: FoundRow, verdict: Mapping[str, Any]) -> str:
    """Returns why a completion is not accepted, in words; nothing if it is."""
    completion = found.row
    judges = verdict["judge_ids"] or ()
    judged = [row for row in found.related["judgements"] if row["judging_id"] in judges]
    if verdict["verdict"] == "failed":
        reason = f", {completion['reason']}" if completion["reason"] else ""
        return f": it is {completion['status']}{reason}"
    if verdict["verdict"] == "rejected":
        lowest, threshold = verdict["min_score"], verdict["threshold"]
        samples = [_sample(row, judged) for row in judged if row["score"] == lowest]
        return (
            f": {' and '.join(samples)} gave {lowest:g}, which is under the threshold {threshold:g}"
        )
    if verdict["verdict"] == "held":
        run_id = verdict["held_by"][:SHORT_ID]
        return f": {verdict['alarm']}; precept approve {run_id} lets its judgements in"
    if verdict["verdict"] == "unjudged":
        unread = [
            f"{_sample(row, judged)} is {row['status']}"
            + (f" ({row['reason']})" if row["reason"] else "")
            for row in judged
            if row["score"] is None
        ]
        missing = verdict["num_judgements"] - verdict["num_judged"]
        unread += [f"{missing} are still to be made"] if missing > 0 else []
        read = f"{verdict['num_parsed']} of {verdict['num_judgements']} judge samples were read"
        return ": " + "; ".join([read, *unread])
    return ""


def _sample(row: Mapping[str, Any], judged: Sequence[Mapping[str, Any]]) -> str:
    """Returns which sample of the judge a judgement is, of which judge of a jury, and the criterion
    of its score if there are several."""
    is_jury = len({other["judging_id"] for other in judged}) > 1
    judge = row["model"] if is_jury else "the judge"
    criterion = (
        row["criterion"]
        or min(row["criteria"], key=lambda one: one["score"], default={"criterion": None})[
            "criterion"
        ]
    )
    about = f" on {criterion}" if criterion else ""
    return f"sample {row['sample_index']} of {judge}{about}"


def _rule(found: FoundRow) -> None:
    """Prints a rule as the specs of each pack have it."""
    for spec in found.related["specs"]:
        category, text = rule_text(spec["text"], found.row_id) or ("", "")
        terminal.heading(f"rule {found.row_id}")
        terminal.fields(
            [
                ("pack", f"{spec['pack']} {spec['pack_version']}"),
                ("category", category or "+".join(spec["categories"])),
                ("spec", spec["spec_id"]),
                ("wanted by the latest run", "yes" if spec["is_current"] else "no"),
                ("completions that cite it", str(spec["num_citing"])),
            ]
        )
        terminal.block("text", text or spec["text"])
