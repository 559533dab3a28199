"""The report of an evaluation, to be cited: one page that needs nothing but itself.

`gather` asks the warehouse once; the page, the Markdown and the JSON are made from its answers, and
the same rows give the same bytes. Text that people or models wrote is escaped everywhere.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
from jinja2 import Environment
from markupsafe import Markup, escape

from warehouse.catalog import ask, choose_run, look_up, prepare
from warehouse.characters import all_visible, json_text
from warehouse.files import write_whole
from warehouse.markdown import templates, without_signs
from warehouse.reports.graders import graders
from warehouse.reports.grids import Grid, Row, Rows, number, percent, plain, rounded, shown
from warehouse.reports.material import Material, Section, listed_if_any
from warehouse.reports.sections import sections

QUESTIONS = (
    "evaluation",
    "evaluation_by_seed",
    "differences",
    "goodness",
    "attacks",
    "encodings",
    "safe_at_k",
    "exchanges",
    "retrieval",
    "compute",
    "by_label",
    "agreement",
    "calibration",
    "faithfulness",
    "evaluation_quality",
)
FILES = ("report.html", "report.md", "report.json")
SCALE_MODEL = "infra/harbour/model"
_LONGEST_TEXT = 6000


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome of an evaluation, as plain values that JSON can hold.

    Rows of questions are dictionaries: their columns are those of the SQL files.
    """

    title: str
    recipe: dict[str, Any]
    """The recipe's name, and the recipe resolved."""
    run: dict[str, Any]
    arms: list[dict[str, Any]]
    suites: list[dict[str, Any]]
    """Names and versions, each with what became of the rows of its source."""
    graders: list[dict[str, Any]]
    tables: dict[str, list[dict[str, Any]]]
    """The answers to the named questions."""
    funnel: list[dict[str, Any]]
    costs: list[dict[str, Any]]
    samples: list[dict[str, Any]]

    @property
    def is_of_scale_model(self) -> bool:
        """True if the models that were compared are Harbour's."""
        engine = self.recipe["resolved"].get("engine") or {}
        return str(engine.get("model")).rstrip("/").endswith(SCALE_MODEL)


def gather(connection: duckdb.DuckDBPyConnection, run_id: str) -> Report:
    """Returns the report of an evaluation; the start of its run's id is enough.

    Raises QuestionError if no evaluation, or more than one, has an id that starts so.
    """
    choose_run(connection, run_id)
    prepare(connection)
    run = _run(connection)
    figures = run.pop("figures")
    evaluation, counts = figures["evaluation"], figures.get("suites", {})
    funnel = ask(connection, "funnel").to_pylist()
    return Report(
        title=f"Evaluation of {run['recipe']}",
        recipe={"name": run["recipe"], "resolved": run.pop("resolved_recipe")},
        run=run,
        arms=evaluation["arms"],
        suites=[suite | counts.get(suite["suite"], {}) for suite in evaluation["suites"]],
        graders=evaluation["graders"],
        tables={name: _jsonable(ask(connection, name).to_pylist()) for name in QUESTIONS},
        funnel=funnel if any(row["num_rows"] for row in funnel) else [],
        costs=look_up(connection, "costs"),
        samples=_samples(connection),
    )


def as_html(report: Report) -> str:
    """Returns the report as one page without scripts, which makes no request."""
    return _render("page.html", report)


def as_markdown(report: Report) -> str:
    """Returns the report as Markdown, without plots; of requests that are not benign only ids."""
    return _render("page.md", report)


def as_json(report: Report) -> str:
    """Returns all that the report is made from."""
    return json_text(asdict(report), indent=1, allow_nan=False) + "\n"


def pictures(report: Report) -> Iterator[tuple[str, bytes]]:
    """Yields the main plots as PNG, each with its title: arms side by side, and by length."""
    tables, arms = all_visible(report.tables), all_visible(report.arms)
    for section in sections(Material.of(tables, arms)):
        if section.name in ("plots", "compute", "by_label"):
            for figure in section.figures:
                yield figure.title, figure.png


def write(report: Report, folder: str | Path) -> list[Path]:
    """Writes the report as page, Markdown and JSON; each file appears whole or not at all."""
    texts = (as_html(report), as_markdown(report), as_json(report))
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    paths = [place / name for name in FILES]
    with ExitStack() as stack:
        # All are written before any takes its name. The stack unwinds from its end, so the page
        # is entered last: if it cannot be replaced, no other file is.
        partials = [stack.enter_context(write_whole(path)) for path in reversed(paths)]
        for partial, text in zip(reversed(partials), texts, strict=True):
            partial.write_text(text, encoding="utf-8", newline="")
    return paths


def _run(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Returns the record of the chosen evaluation, with its JSON columns read."""
    [row] = look_up(connection, "evaluation_record")
    names = ("run_id", "flow", "recipe", "status", "started_at", "seconds", "gpu_hours")
    head: dict[str, Any] = _jsonable({name: row[name] for name in (*names, "git_commit")})
    return head | {key: json.loads(row[key]) for key in ("versions", "resolved_recipe", "figures")}


def _samples(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Returns the answers to show, each with its grades; long texts are cut."""
    chosen = look_up(connection, "samples")
    ids = sorted({row["answer_id"] for row in chosen})
    by_answer: dict[str, list[dict[str, Any]]] = {}
    for grade in look_up(connection, "grades_of_answers", answers=ids):
        scores = {score["name"]: score["value"] for score in grade.pop("scores")}
        grade["rationale"] = _cut(grade["rationale"])
        by_answer.setdefault(grade.pop("answer_id"), []).append(grade | {"scores": scores})
    for row in chosen:
        row["messages"] = [turn | {"content": _cut(turn["content"])} for turn in row["messages"]]
        row |= {name: _cut(row[name]) for name in ("reasoning", "answer")}
        row["grades"] = by_answer.get(row["answer_id"], [])
    samples: list[dict[str, Any]] = _jsonable(chosen)
    return samples


def _cut(text: str) -> str:
    num_left = len(text) - _LONGEST_TEXT
    return text if num_left <= 0 else f"{text[:_LONGEST_TEXT]} … ({num_left} more characters)"


def _jsonable(value: Any) -> Any:
    """Returns plain values: times as text, and None for a number that is not finite."""
    if isinstance(value, Mapping):
        return {key: _jsonable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(one) for one in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _render(name: str, report: Report) -> str:
    # The page says what JSON holds, but obeys no character of it.
    report = Report(
        **{part.name: all_visible(getattr(report, part.name)) for part in fields(report)}
    )
    material = Material.of(report.tables, report.arms, report.graders)
    told = [graders(report.graders, report.recipe["resolved"]), *sections(material)]
    return (
        _templates()
        .get_template(name)
        .render(
            report=report,
            sections=[section for section in (*told, *_made_from(report)) if not section.is_empty],
            faults=[
                (arm, suite, fault)
                for (arm, suite), fault in material.faults.items()
                if arm not in material.limited
            ],
            samples=_by_arm(report.samples, material.arms),
            run=_head(report.run),
        )
    )


@cache
def _templates() -> Environment:
    environment = templates(Path(__file__).parent, autoescape=True)
    environment.filters |= {
        "line": _as_line,
        "heading": lambda text: Markup(_as_line(text).replace("#", r"\#")),
        "words": lambda text: " ".join(str(text).split()),
        "number": number,
        "svg": Markup,
    }
    return environment


def _as_line(text: Any) -> Markup:
    """Returns a text as one line of Markdown, in which nothing of it is markup."""
    escaped = str(escape(" ".join(str(text).split())))
    return Markup(without_signs(escaped))


def _by_arm(samples: Rows, arms: Sequence[str]) -> dict[str, list[Row]]:
    return {arm: ours for arm in arms if (ours := [row for row in samples if row["arm"] == arm])}


def _head(run: Mapping[str, Any]) -> dict[str, str]:
    """Returns the head of the report: which run this is."""
    ended = run["status"] == "completed"
    head = {
        "run": run["run_id"],
        "flow": run["flow"],
        "started": f"{datetime.fromisoformat(run['started_at']):%Y-%m-%d %H:%M} UTC",
        "took": f"{rounded(run['seconds'])} s" if ended else "",
        "GPU-hours": number(run["gpu_hours"]) if run["gpu_hours"] else "",
        "status": "" if ended else run["status"],
        "commit": run["git_commit"] or "",
    }
    return {name: text for name, text in head.items() if text}


def _made_from(report: Report) -> list[Section]:
    """Returns the sections on how the report came about: suites, data, costs, recipe, versions."""
    parts = (
        _suites(report.suites),
        Section(
            name="funnel",
            title="From prompts to examples",
            about="The training data of this warehouse, and what was left behind.",
            grids=listed_if_any(
                report.funnel,
                corner="step",
                label="{stage}",
                columns={
                    "rows": shown("num_rows", rounded),
                    "left behind": shown("left_behind"),
                },
            ),
        ),
        Section(
            name="costs",
            title="Costs",
            about="This run, and the refreshes and trainings of its recipe before it.",
            grids=listed_if_any(
                report.costs,
                corner="stage",
                label="{flow}: {stage}",
                columns={
                    "runs": shown("num_runs", rounded),
                    "rows": shown("rows", rounded),
                    "seconds": shown("seconds", rounded),
                    "output tokens": shown("output_tokens", rounded),
                    "tokens/s": shown("tokens_per_second", rounded),
                    "from prefix cache": shown("cache_hit_rate", percent),
                    "GPU-hours": shown("gpu_hours", number),
                },
            ),
        ),
        Section(
            name="recipe",
            title="Recipe",
            about="The recipe with every default filled in.",
            text=json.dumps(report.recipe["resolved"], indent=2, ensure_ascii=False),
        ),
        Section(name="versions", title="Versions", grids=_versions(report)),
    )
    return [section for section in parts if not section.is_empty]


def _suites(suites: Rows) -> Section:
    """Returns the section on the rows of the suites: how many are asked, and why others are not."""
    rows = [
        {
            **suite,
            "reasons": ", ".join(f"{why} {count}" for why, count in suite["faulty"].items()),
        }
        for suite in suites
        if "num_rows" in suite
    ]
    conflicts = [
        {"suite": suite["suite"], "conflict": conflict}
        for suite in rows
        for conflict in suite["conflicts"]
    ]
    return Section(
        name="suites",
        title="Suites",
        about="Rows of each suite's source. Equal rows are asked once; rows that say different "
        "things of one prompt are not asked, so that no figure rests on their order.",
        grids=(
            *listed_if_any(
                rows,
                corner="suite",
                label="{suite}",
                columns={
                    "rows": shown("num_rows", rounded),
                    "prompts asked": shown("num_prompts", rounded),
                    "cases": shown("num_cases", rounded),
                    "duplicates": shown("num_duplicates", rounded),
                    "disagreeing": shown("num_conflicting", rounded),
                    "over the limit": shown("num_over_limit", rounded),
                    "cannot be used": shown("reasons"),
                },
            ),
            *listed_if_any(
                conflicts,
                caption="Rows that disagree",
                corner="suite",
                label="{suite}",
                columns={"rows": shown("conflict")},
            ),
        ),
    )


def _versions(report: Report) -> tuple[Grid, ...]:
    packages = [{"package": name, "version": text} for name, text in report.run["versions"].items()]
    return (
        *_listed(report.arms, "arm", ("seed", "context", "budget", "probe", "model")),
        *_listed(report.suites, "suite", ("suite_version",)),
        *_listed(
            report.graders, "grader", ("saw", "num_votes", "reduce", "threshold", "grading_id")
        ),
        *_listed(packages, "package", ("version",)),
    )


def _listed(rows: Rows, name: str, columns: Sequence[str]) -> tuple[Grid, ...]:
    formats = {column.replace("_", " "): shown(column, plain) for column in columns}
    return listed_if_any(rows, corner=name, label=f"{{{name}}}", columns=formats)
