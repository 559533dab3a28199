"""The judge against gold: how precise the filter is, and how much it lets through, by threshold
and k."""

from dataclasses import dataclass
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.arms import Asked, check
from flows.evaluate import evaluate_arms
from flows.recipe import SUITES, Recipe, RecipeError
from flows.run import home_at, open_run
from tasks.answer import RECORDED, Arm
from tasks.suites import load_suite
from warehouse.catalog import ask, choose_run


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
        arm = Arm(
            name=RECORDED if given else "generator",
            model=RECORDED if given else run.version(recipe.engine),
            checkpoint_id=None,
            seed=None,
            config=config,
        )
        evaluate_arms(run, [Asked(arm, recipe.engine)])
        connection = run.warehouse()
        choose_run(connection, run.id)
        table: list[dict[str, Any]] = ask(connection, "calibration").to_pylist()
        create_table_artifact(key="calibration", table=table, description="The judge against gold")
        return Calibrated(run.id, run.home.url, table)
