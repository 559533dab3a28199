"""One page of what a model wrote: conversation, reasoning, answer, scores and lineage.

What a reader looks for comes first: what became of it and why, then the texts, then the scores with
the lowest on top. Citations stand out; an id that no rule has stands out in red.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flows import terminal
from flows.show import SHORT_ID, value_text
from specs.parts import rule_text
from specs.reasoning import citation_marks
from warehouse.rows import NOUNS, FoundRow

Row = Mapping[str, Any]

_STYLES = {True: "bold cyan", False: "bold red", None: ""}
KINDS = ("completions", "judgements", "answers", "evaluations")
"""Tables of which a row has such a page."""
SHOWN = {
    "completions": ("status", "reason", "cited", "cited_unknown", "run_id", "spec_id"),
    "judgements": ("score", "criteria", "status", "reason", "agrees", "model", "run_id", "spec_id"),
    "answers": ("status", "reason", "cited", "cited_unknown", "run_id", "spec_id"),
    "evaluations": ("scores", "status", "reason", "grader", "run_id", "spec_id"),
}
"""Columns of each that the page has told by then."""


def texts(found: FoundRow) -> None:
    """Prints the texts of a page and its scores; conversations are printed before."""
    row = found.row
    if found.kind in ("judgements", "evaluations"):
        terminal.block("rationale", *_marked(row["rationale"], _written(found)))
    written = _written(found)
    if written:
        terminal.block(_reasoning_title(written), *_marked(written["reasoning"], written))
        terminal.block("answer", written["answer"] or "(none)")
        _rules(found, written)
    if found.kind == "completions":
        _judgements(found)
        _reviews(found)
    elif found.kind == "answers":
        _grades(found)


def lineage(found: FoundRow) -> None:
    """Prints where a row comes from, and what came of it."""
    row, related = found.row, found.related
    lines: list[tuple[str, str]] = []
    for name in ("completion", "answer"):
        rows = related.get(name, [])
        for one in rows[:1]:
            shared = f", and {len(rows) - 1} more with its text" if len(rows) > 1 else ""
            lines.append((name, f"{one[f'{name}_id']} by {one['model']}{shared}"))
    for one in related.get("prompt", ()):
        lines.append(("prompt", f"{one['prompt_id']}, source {one['source']}, {one['split']}"))
    for one in related.get("case", ()):
        attack = "" if one["attack"] == "none" else f", attack {one['attack']}"
        lines.append(("case", f"{one['case_id']}, suite {one['suite']}{attack}"))
    for one in related.get("spec", ()):
        categories = "+".join(one["categories"]) or "summaries alone"
        pack = f"{one['pack']} {one['pack_version']}, {categories}"
        lines.append(("spec", f"{one['spec_id']} ({pack})"))
    if not related.get("spec"):
        lines.append(("spec", row.get("spec_id") or "none"))
    lines.append(("model", row["model"] or "none: a function"))
    for one in related.get("run", ()):
        lines.append(("run", _run_words(one)))
    if not related.get("run"):
        lines.append(("run", f"{row['run_id']}, which left no record"))
    for one in related.get("checkpoints", ()):
        lines.append(("learned by", f"{one['stage']} checkpoint {one['checkpoint_id'][:SHORT_ID]}"))
    terminal.line("")
    terminal.heading("lineage")
    terminal.fields(lines)
    if found.kind in KINDS:
        terminal.line(f"its prompt, made again: precept show {found.row_id[:SHORT_ID]} --prompt")


def _run_words(run: Row) -> str:
    commit = f", commit {run['git_commit'][:SHORT_ID]}" if run["git_commit"] else ""
    return (
        f"{run['run_id'][:SHORT_ID]}, {run['flow']} of recipe {run['recipe']}, "
        f"{run['started_at']:%Y-%m-%d %H:%M}{commit}"
    )


def _written(found: FoundRow) -> Row | None:
    """Returns the row whose reasoning and answer the page is about."""
    if found.kind in ("completions", "answers"):
        return found.row
    rows = [*found.related.get("completion", ()), *found.related.get("answer", ())]
    return rows[0] if rows else None


def _reasoning_title(row: Row) -> str:
    cited = [*row["cited"], *(f"{name} (no rule)" for name in row["cited_unknown"])]
    return f"reasoning, which cites {', '.join(cited) or 'no rule'}"


def _marked(text: str, written: Row | None) -> list[terminal.Part]:
    """Returns a text with its citations in colour."""
    known = written["cited"] if written else ()
    unknown = written["cited_unknown"] if written else ()
    pieces = citation_marks(text or "(none)", known=known, unknown=unknown)
    return [(piece, _STYLES[mark]) for piece, mark in pieces if piece]


def _rules(found: FoundRow, written: Row) -> None:
    """Prints the rules that the reasoning cites, as the spec of the row has them."""
    specs = found.related.get("spec", ())
    lines = []
    for name in written["cited"]:
        texts_of = [rule_text(spec["text"], name) for spec in specs]
        lines += [(text[1], "") for text in texts_of if text]
    lines += [(f"- [{name}]: no rule has this id", "red") for name in written["cited_unknown"]]
    if lines:
        parts: list[terminal.Part] = []
        for number, (text, style) in enumerate(lines):
            parts.append((f"{chr(10) if number else ''}{text}", style))
        terminal.block("cited rules", *parts)


def _judgements(found: FoundRow) -> None:
    """Prints the judgements of a completion with their rationales, the lowest score first."""
    judges = {name for one in found.related["verdicts"] for name in one["judge_ids"] or ()}
    rows = sorted(
        found.related["judgements"],
        key=lambda row: (row["score"] is None, row["score"], row["sample_index"]),
    )
    if not rows:
        terminal.block("scores", "none: it was not judged")
    for row in rows:
        counts = "" if row["judging_id"] in judges else "; it does not count for the latest run"
        terminal.block(f"{_score_words(row)}{counts}", *_marked(row["rationale"], found.row))


def _reviews(found: FoundRow) -> None:
    """Prints what people said of a completion."""
    for row in found.related.get("reviews", ()):
        said = f"review: {row['decision']}, by {row['reviewer']}"
        terminal.block(said, row["note"] or "(no note)")


def _score_words(row: Row) -> str:
    """Returns the score of a judgement and whose it is."""
    whose = f"sample {row['sample_index']} of {row['model']}, {row['judgement_id'][:SHORT_ID]}"
    about = f" on {row['criterion']}" if row["criterion"] else ""
    if row["score"] is None:
        reason = f": {row['reason']}" if row["reason"] else ""
        return f"no score{about}, {row['status']}{reason} ({whose})"
    parts = ", ".join(f"{one['criterion']} {value_text(one['score'])}" for one in row["criteria"])
    agrees = {True: ", agrees with the metadata", False: ", disagrees with the metadata"}
    return (
        f"score {row['score']:g}{about}{f' ({parts})' if parts else ''}"
        f"{agrees.get(row['agrees'], '')} ({whose})"
    )


def _grades(found: FoundRow) -> None:
    """Prints the grades of an answer with their rationales, the lowest first."""

    def lowest(row: Row) -> tuple[bool, float]:
        values = [one["value"] for one in row["scores"] or () if one["value"] is not None]
        return (not values, min(values, default=0.0))

    rows = sorted(found.related["grades"], key=lowest)
    if not rows:
        terminal.block("grades", "none: it was not graded")
    for row in rows:
        whose = (
            f"sample {row['sample_index']} of {row['grader']}, {row['evaluation_id'][:SHORT_ID]}"
        )
        status = "" if row["status"] == "ok" else f"{row['status']}, "
        scores = grade_words(row["scores"]) or "no score"
        terminal.block(
            f"{status}{scores} ({whose})", *_marked(row["rationale"] or "(no words)", found.row)
        )


def grade_words(scores: Sequence[Row] | None) -> str:
    """Returns the scores of a grade as "safe 1, right 0.5"."""
    return ", ".join(f"{one['name']} {value_text(one['value'])}" for one in scores or ())


def standing(found: FoundRow) -> list[tuple[str, str]]:
    """Returns what a judgement, an answer or a grade came to."""
    row = found.row
    reason = f", {row['reason']}" if row["reason"] else ""
    lines = [("status", f"{row['status']}{reason}")]
    if found.kind == "judgements":
        score = "none" if row["score"] is None else f"{row['score']:g}"
        parts = ", ".join(f"{c['criterion']} {value_text(c['score'])}" for c in row["criteria"])
        lines.insert(0, ("score", f"{score}{f' ({parts})' if parts else ''}"))
        if row["agrees"] is not None:
            lines.append(("agrees with the metadata", value_text(row["agrees"])))
        lines.append(("judge", row["model"]))
    elif found.kind == "evaluations":
        lines.insert(0, ("scores", grade_words(row["scores"]) or "none"))
        lines.append(("grader", row["grader"]))
    return lines


def heading(found: FoundRow) -> None:
    """Prints the title of a page."""
    terminal.heading(f"{NOUNS[found.kind]} {found.row_id}")
