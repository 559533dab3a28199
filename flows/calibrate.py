"""The judge against gold: how precise the filter is, and how much it lets through, by threshold
and k."""

from dataclasses import dataclass
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.arms import check, of_base
from flows.evaluate import measure
from flows.recipe import SUITES, Recipe, RecipeError
from flows.run import home_at, open_run
from tasks.evaluation.answer import RECORDED
from tasks.evaluation.suites import load_suite


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What the judge was found to do: a row for each threshold and k."""

    run_id: str
    home: str
    table: list[dict[str, Any]]

    @property
    def best(self) -> dict[str, Any] | None:
        """The threshold with the highest F1 at the most votes; of several, the strictest."""
        scored = [row for row in self.table if row["f1"] is not None]
        most = max((row["k"] for row in scored), default=0)
        rows = [row for row in scored if row["k"] == most]
        return max(rows, key=lambda row: (row["f1"], row["threshold"]), default=None)


@flow(
    name="calibrate",
    flow_run_name="calibrate {recipe.name}",
    persist_result=False,
    log_prints=False,
)
def calibrate(recipe: Recipe, home: str | None = None) -> Calibrated:
    """Has judge and gold grade the answers that came with the suites, else the generator's."""
    config = recipe.calibrate
    if config is None:
        raise RecipeError(f"recipe {recipe.name} calibrates nothing; give it a section [calibrate]")
    recipe = recipe.model_copy(update={"evaluate": config})
    check(recipe)
    with open_run("calibrate", recipe, home_at(home)) as run:
        given = all(load_suite(name, SUITES).answer for name in config.suites)
        if given:
            arm = of_base(run, config, name=RECORDED, model=RECORDED)
        else:
            arm = of_base(run, config, name="generator")
        table = measure(run, [arm]).tables["calibration"]
        create_table_artifact(key="calibration", table=table, description="The judge against gold")
        return Calibrated(run.id, run.home.url, table)
