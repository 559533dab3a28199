"""The report of an evaluation: what users cite. One page that needs nothing but itself.

`gather` asks the warehouse once; the page, the Markdown and the JSON are made from what it found,
and the same rows give the same bytes. What people or models wrote is escaped wherever it stands.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from warehouse.catalog import ask, choose_run, prepare
from warehouse.reports.grids import Grid, Row, Rows, number, percent, plain, rounded, shown, table
from warehouse.reports.material import Material, Section
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
    """What an evaluation came to, as plain values that JSON can hold."""

    title: str
    recipe: dict[str, Any]
    """Its name, and what it resolved to."""
    run: dict[str, Any]
    arms: list[dict[str, Any]]
    suites: list[dict[str, Any]]
    graders: list[dict[str, Any]]
    tables: dict[str, list[dict[str, Any]]]
    """The answers to the named questions."""
    funnel: list[dict[str, Any]]
    costs: list[dict[str, Any]]
    samples: list[dict[str, Any]]

    @property
    def is_of_scale_model(self) -> bool:
        """Whether the models compared are Harbour's."""
        engine = self.recipe["resolved"].get("engine") or {}
        return str(engine.get("model")).rstrip("/").endswith(SCALE_MODEL)


def gather(connection: duckdb.DuckDBPyConnection, run_id: str) -> Report:
    """All that there is to report of an evaluation; the start of its run's id is enough.

    Raises QuestionError where no evaluation, or more than one, has an id that starts so.
    """
    choose_run(connection, run_id)
    prepare(connection)
    run = _run(connection)
    evaluation = run.pop("figures")["evaluation"]
    funnel = ask(connection, "funnel").to_pylist()
    return Report(
        title=f"Evaluation of {run['recipe']}",
        recipe={"name": run["recipe"], "resolved": run.pop("resolved_recipe")},
        run=run,
        arms=evaluation["arms"],
        suites=evaluation["suites"],
        graders=evaluation["graders"],
        tables={name: _jsonable(ask(connection, name).to_pylist()) for name in QUESTIONS},
        funnel=funnel if any(row["num_rows"] for row in funnel) else [],
        costs=_costs(connection),
        samples=_samples(connection),
    )


def as_html(report: Report) -> str:
    """The report as one page without a script and without a request to anywhere."""
    return _render("page.html", report)


def as_markdown(report: Report) -> str:
    """The report as Markdown without figures. Of requests that are not benign only ids are told."""
    return _render("page.md", report)


def as_json(report: Report) -> str:
    """Everything the report is made from."""
    return json.dumps(asdict(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def pictures(report: Report) -> Iterator[tuple[str, bytes]]:
    """The headline plots as pictures, each with its title: arms side by side, and by length of
    reasoning."""
    for section in sections(Material.of(report.tables, report.arms)):
        if section.name in ("plots", "compute"):
            for figure in section.figures:
                yield figure.title, figure.png


def write(report: Report, folder: str | Path) -> list[Path]:
    """Writes the report as page, Markdown and JSON; each file appears whole or not at all."""
    texts = (as_html(report), as_markdown(report), as_json(report))
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    paths = [place / name for name in FILES]
    partials = [path.with_name(f".{path.name}.partial") for path in paths]
    try:
        for partial, text in zip(partials, texts, strict=True):
            # Half a surrogate pair, which JSON can bear and UTF-8 cannot, is told by its number.
            partial.write_bytes(text.encode("utf-8", "backslashreplace"))
        for partial, path in zip(partials, paths, strict=True):
            partial.replace(path)
    finally:
        for partial in partials:
            partial.unlink(missing_ok=True)
    return paths


def _run(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    [row] = (
        connection.sql(
            "SELECT run_id, flow, recipe, status, started_at, seconds, gpu_hours, git_commit, "
            "versions, resolved_recipe, figures FROM runs SEMI JOIN current_run USING (run_id)"
        )
        .to_arrow_table()
        .to_pylist()
    )
    told: dict[str, Any] = _jsonable(row)
    return told | {key: json.loads(row[key]) for key in ("versions", "resolved_recipe", "figures")}


def _costs(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Stage by stage what the run cost, and what made the models and data of its recipe before.

    An arm of an ablation with sources of its own has a recipe named after both.
    """
    found = connection.execute(
        "SELECT r.flow, r.figures FROM runs AS r "
        "JOIN (FROM runs SEMI JOIN current_run USING (run_id)) AS this "
        "ON r.run_id = this.run_id OR (r.started_at <= this.started_at "
        "AND (r.recipe = this.recipe OR starts_with(r.recipe, this.recipe || '+')) "
        "AND json_type(r.figures, '$.evaluation') IS NULL) ORDER BY r.started_at, r.run_id"
    ).fetchall()
    costs: dict[tuple[str, str], dict[str, Any]] = {}
    for flow, figures in found:
        for stage, made in json.loads(figures).items():
            if isinstance(made, dict) and made.get("seconds"):
                key = (flow, stage)
                costs[key] = _add(costs.get(key, {"flow": flow, "stage": stage}), made)
    return [_rates(row) for row in costs.values()]


def _add(row: dict[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    counts = ("rows", "seconds", "prompt_tokens", "cached_tokens", "output_tokens")
    summed = {name: row.get(name, 0) + made.get(name, 0) for name in counts}
    hours = made["seconds"] * made.get("gpus", 0) / 3600
    return (
        row
        | summed
        | {
            "num_runs": row.get("num_runs", 0) + 1,
            "gpu_hours": row.get("gpu_hours", 0.0) + hours,
        }
    )


def _rates(row: dict[str, Any]) -> dict[str, Any]:
    """Sums with what follows from them; null where a stage has no tokens or rows to tell of."""
    tokens, prompt = row["output_tokens"], row["prompt_tokens"]
    return row | {
        "rows": row["rows"] or None,
        "output_tokens": tokens or None,
        "seconds": round(row["seconds"], 2),
        "tokens_per_second": round(tokens / row["seconds"], 1) if tokens else None,
        "cache_hit_rate": round(row["cached_tokens"] / prompt, 4) if prompt else None,
        "gpu_hours": round(row["gpu_hours"], 4),
    }


# Of each arm in each suite one answer that graders think worst, one that they think best, and one
# that they differ on most. What a grader thinks is the score that says most of the whole answer.
_CHOSEN = """
WITH ranked AS (
    SELECT
        arm, suite, case_id, answer_id, grader, value,
        list_position(['good', 'right', 'decision', 'correct', 'safe', 'helped'], score) AS place
    FROM graded
    WHERE value IS NOT NULL
      AND answer_id IS NOT NULL
      AND probe = 'none'
      AND (score IN ('good', 'right', 'decision', 'correct')
        OR (score = 'safe' AND kind = 'harmful')
        OR (score = 'helped' AND kind = 'benign'))
    QUALIFY row_number() OVER (PARTITION BY arm, suite, answer_id, grader ORDER BY place) = 1
),
judged AS (
    SELECT arm, suite, case_id, answer_id, avg(value) AS mean, max(value) - min(value) AS spread
    FROM ranked
    GROUP BY ALL
),
placed AS (
    SELECT
        *,
        row_number() OVER (each_suite ORDER BY spread DESC, answer_id) AS divided,
        row_number() OVER (each_suite ORDER BY mean, answer_id) AS worst,
        row_number() OVER (each_suite ORDER BY mean DESC, spread, answer_id) AS best
    FROM judged
    WINDOW each_suite AS (PARTITION BY arm, suite)
)
SELECT
    p.arm, p.suite, p.mean, p.spread,
    list_filter([
        if(worst = 1, 'judged worst', NULL),
        if(best = 1, 'judged best', NULL),
        if(divided = 1 AND spread > 0, 'graders disagree', NULL)
    ], lambda reason: reason IS NOT NULL) AS why,
    c.prompt_id, c.case_id, c.kind, c.categories, c.ideal_response, c.attack,
    a.answer_id, a.status, a.decision, a.cited, a.cited_unknown,
    c.messages, a.reasoning, a.answer
FROM placed AS p
JOIN run_cases AS c USING (suite, case_id)
JOIN answers AS a USING (answer_id)
WHERE len(why) > 0
ORDER BY p.suite, p.arm, worst DESC, a.answer_id
"""

_VOTES = """
SELECT answer_id, grader, status, reason, scores, rationale
FROM run_grades
WHERE list_contains($answers, answer_id)
ORDER BY grader, sample_index
"""


def _samples(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    chosen: list[dict[str, Any]] = connection.sql(_CHOSEN).to_arrow_table().to_pylist()
    votes = connection.sql(
        _VOTES, params={"answers": sorted({row["answer_id"] for row in chosen})}
    ).to_arrow_table()
    by_answer: dict[str, list[dict[str, Any]]] = {}
    for vote in votes.to_pylist():
        scores = {score["name"]: score["value"] for score in vote.pop("scores")}
        vote["rationale"] = _cut(vote["rationale"])
        by_answer.setdefault(vote.pop("answer_id"), []).append(vote | {"scores": scores})
    for row in chosen:
        row["messages"] = [turn | {"content": _cut(turn["content"])} for turn in row["messages"]]
        row |= {name: _cut(row[name]) for name in ("reasoning", "answer")}
        row["votes"] = by_answer.get(row["answer_id"], [])
    found: list[dict[str, Any]] = _jsonable(chosen)
    return found


def _cut(text: str) -> str:
    left = len(text) - _LONGEST_TEXT
    return text if left <= 0 else f"{text[:_LONGEST_TEXT]} … ({left} more characters)"


def _jsonable(value: Any) -> Any:
    """Plain values: times as text, and null for what is not a number."""
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
    material = Material.of(report.tables, report.arms)
    return (
        _templates()
        .get_template(name)
        .render(
            report=report,
            sections=[*sections(material), *_made_from(report)],
            faults=[
                (arm, suite, fault)
                for (arm, suite), fault in material.faults.items()
                if arm not in material.limited
            ],
            samples=_by_arm(report.samples, material.arms),
            run=_told(report.run),
        )
    )


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"line": _as_line, "number": number, "svg": Markup}
    return environment


def _as_line(text: Any) -> Markup:
    """A text as one line of Markdown that it cannot leave and in which nothing of it is markup."""
    escaped = str(escape(" ".join(str(text).split())))
    return Markup("".join(f"\\{sign}" if sign in r"\|`*_[]~" else sign for sign in escaped))


def _by_arm(samples: Rows, arms: Sequence[str]) -> dict[str, list[Row]]:
    return {arm: ours for arm in arms if (ours := [row for row in samples if row["arm"] == arm])}


def _told(run: Mapping[str, Any]) -> dict[str, str]:
    """The head of the report: which run this is."""
    ended = run["status"] == "completed"
    told = {
        "run": run["run_id"],
        "flow": run["flow"],
        "started": f"{datetime.fromisoformat(run['started_at']):%Y-%m-%d %H:%M} UTC",
        "took": f"{rounded(run['seconds'])} s" if ended else "",
        "GPU-hours": number(run["gpu_hours"]) if run["gpu_hours"] else "",
        "status": "" if ended else run["status"],
        "commit": run["git_commit"] or "",
    }
    return {name: text for name, text in told.items() if text}


def _made_from(report: Report) -> list[Section]:
    """How the report came about: data, costs, recipe, versions."""
    made = (
        Section(
            name="funnel",
            title="From prompts to examples",
            about="What the training data of this warehouse came to, and what was left behind.",
            grids=_if_any(
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
            grids=_if_any(
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
    return [section for section in made if not section.is_empty]


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
    told = {column.replace("_", " "): shown(column, plain) for column in columns}
    return _if_any(rows, corner=name, label=f"{{{name}}}", columns=told)


def _if_any(rows: Rows, **options: Any) -> tuple[Grid, ...]:
    """A table where there are rows, else none."""
    return (table(rows, **options),) if rows else ()
