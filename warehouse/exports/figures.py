"""The figures of a card: the rows of named queries, and nothing else.

Whatever number a card tells stands in the rows of one of them. They leave with the card, each with
its SQL, so that a reader can trace every figure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from warehouse.catalog import choose_run, prepare, query_text, read
from warehouse.characters import all_visible, json_text

FILE = "figures.json"
"""The file of an export that has every figure of its card; its presence marks an export."""

_QUERIES = Path(__file__).parent / "figures"
_OF_DATASET = (
    "configs",
    "unfit",
    "languages",
    "categories",
    "models",
    "specs",
    "settings",
    "collected",
    "held_out",
    "costs",
    "limits",
    "runs",
)
_OF_CHECKPOINT = ("checkpoint", "lineage", "ancestors")

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Figures:
    """Rows by the names of their queries, with the queries' texts."""

    rows: dict[str, Rows] = field(default_factory=dict)
    queries: dict[str, str] = field(default_factory=dict)

    def add(
        self,
        connection: duckdb.DuckDBPyConnection,
        name: str,
        query: str,
        parameters: Mapping[str, Any] | None = None,
    ) -> Rows:
        """Asks a query and keeps its rows under a name."""
        relation = read(connection, query, dict(parameters or {}))
        self.rows[name] = relation.to_arrow_table().to_pylist()
        self.queries[name] = query
        return self.rows[name]

    def add_none(self, name: str, query: str) -> None:
        """Keeps that a query was not asked, because nothing was there to ask it about."""
        self.rows[name], self.queries[name] = [], query

    def shown(self, show: Callable[[str], str]) -> "Figures":
        """Returns the figures with every text in their rows as `show` gives it."""
        rows = {name: all_visible(each, show) for name, each in self.rows.items()}
        return Figures(rows, self.queries)

    def as_json(self, kind: str) -> str:
        """Returns the queries with their rows; `kind` is `dataset` or `checkpoint`."""
        queries = {
            name: {"sql": self.queries[name], "rows": list(rows)}
            for name, rows in self.rows.items()
        }
        return json_text({"kind": kind, "queries": queries}, indent=1) + "\n"


def _own(name: str) -> str:
    return (_QUERIES / f"{name}.sql").read_text(encoding="utf-8").rstrip().removesuffix(";")


def figures_of_dataset(connection: duckdb.DuckDBPyConnection) -> Figures:
    """Returns the figures of the data set that this connection has exported."""
    figures = Figures()
    figures.add(connection, "funnel", query_text("funnel"))
    for name in _OF_DATASET:
        figures.add(connection, name, _own(name))
    figures.add_none("calibration", query_text("calibration"))
    for row in figures.add(connection, "calibrations", _own("calibrations")):
        figures.rows["calibration"] = _calibration(connection, figures, row)
    return figures


def _calibration(
    connection: duckdb.DuckDBPyConnection, figures: Figures, run: Mapping[str, Any]
) -> Rows:
    """Returns what the calibration of a recipe says of its judge at the settings of the recipe."""
    [settings] = [row for row in figures.rows["settings"] if row["recipe"] == run["recipe"]]
    choose_run(connection, run["run_id"])
    prepare(connection)
    asked = query_text("calibration").rstrip().removesuffix(";")
    query = (
        f"SELECT * FROM ({asked}) WHERE criterion IS NULL "
        "AND threshold = $threshold AND k = $num_judgements"
    )
    names = ("threshold", "num_judgements")
    before = list(figures.rows["calibration"])
    settings = {name: settings[name] for name in names}
    return [*before, *figures.add(connection, "calibration", query, settings)]


def figures_of_checkpoint(connection: duckdb.DuckDBPyConnection, checkpoint_id: str) -> Figures:
    """Returns the figures of a checkpoint, with those of its latest evaluation if there is one."""
    figures = Figures()
    parameters = {"checkpoint_id": checkpoint_id}
    for name in _OF_CHECKPOINT:
        figures.add(connection, name, _own(name), parameters)
    figures.add_none("evaluation", query_text("evaluation"))
    figures.add_none("evaluation_quality", query_text("evaluation_quality"))
    for row in figures.add(connection, "evaluated", _own("evaluated"), parameters):
        choose_run(connection, row["run_id"])
        prepare(connection)
        figures.add(connection, "evaluation", query_text("evaluation"))
        figures.add(connection, "evaluation_quality", query_text("evaluation_quality"))
    return figures
