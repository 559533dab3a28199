"""The judge against gold: precision and recall of the filter, by threshold and k.

Gold are graders of suites, or the reviews of completions that the judge has judged already.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.evaluate import base_arm, check, measure
from flows.recipe import SUITES, Recipe, RecipeError
from flows.run import home_at, open_run
from tasks.evaluation.answer import RECORDED
from tasks.evaluation.arms import ServedArm
from tasks.evaluation.evaluation import require_comparable
from tasks.evaluation.rows import SuiteFigures
from tasks.evaluation.suites import load_suites
from warehouse.catalog import ask, connect
from warehouse.home import Home
from warehouse.reports.recommend import Recommended, recommend


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The outcome of a calibration."""

    run_id: str | None
    """None if nothing was graded: reviews are gold for judgements that are there."""
    home: str
    table: list[dict[str, Any]]
    """Rows of question `calibration`: one for each threshold and k, also of juries and of single
    criteria."""
    suites: Mapping[str, SuiteFigures]
    """By suite, what became of the rows of its source."""
    recommended: list[Recommended] = field(default_factory=list)
    """The cheapest that reaches the precision that was asked for, for each gold grader."""

    @property
    def best(self) -> dict[str, Any] | None:
        """The row with the highest F1 at the largest k; of several, the strictest threshold."""
        # One criterion alone is not what the filter goes by.
        whole = [row for row in self.table if row["criterion"] is None]
        scored = [row for row in whole if row["f1"] is not None]
        largest = max((row["k"] for row in scored), default=0)
        rows = [row for row in scored if row["k"] == largest]
        return max(rows, key=lambda row: (row["f1"], row["threshold"]), default=None)


@flow(
    name="calibrate",
    flow_run_name="calibrate {recipe.name}",
    persist_result=False,
    log_prints=False,
)
def calibrate(recipe: Recipe, home: str | None = None, precision: float = 0.95) -> Calibrated:
    """Has judges and gold grade the answers that came with the suites, else the student's.

    Recommends the cheapest judges, number of grades and threshold that reach a precision. Raises
    a ValueError if the recipe has no calibration, or if anything in it cannot be used.
    """
    if not 0 <= precision <= 1:
        raise ValueError(f"precision is {precision}; give a share from 0 to 1, such as 0.95")
    if recipe.calibrate is None:
        raise RecipeError(f"recipe {recipe.name} calibrates nothing; give it a section [calibrate]")
    recipe = recipe.model_copy(update={"evaluate": recipe.calibrate})
    config = check(recipe)
    require_comparable(config)
    with open_run("calibrate", recipe, home_at(home)) as run:
        if all(suite.answer for suite in load_suites(config.suites, SUITES)):
            arm = ServedArm.of_base(recipe.student_engine, config, name=RECORDED, model=RECORDED)
        else:
            arm = base_arm(run, config, name="student" if recipe.student else "generator")
        table = measure(run, config, [arm], by_jury=True).tables["calibration"]
        create_table_artifact(key="calibration", table=table, description="The judge against gold")
        best = recommend(table, precision)
        return Calibrated(run.id, run.home.url, table, run.figures.suites, best)


def calibrate_by_reviews(recipe: Recipe, home: Home, precision: float) -> Calibrated:
    """Holds the judgements of a recipe against what people said of the same completions; asks no
    model.

    Raises RecipeError if nobody has decided on any that the recipe's latest refresh wanted.
    """
    rows = ask(connect(home), "review_calibration").to_pylist()
    table = [row for row in rows if row["recipe"] == recipe.name]
    if not table:
        raise RecipeError(
            f"no completion that the judge of recipe {recipe.name} judged is accepted or rejected "
            "by reviewers; run precept review first"
        )
    return Calibrated(None, home.url, table, {}, recommend(table, precision))
