"""The whole system on one screen: data, training, evaluation."""

from dataclasses import dataclass

from prefect import flow

from flows.evaluate import Evaluated, check, check_suites, evaluate
from flows.recipe import Recipe
from flows.refresh import refresh
from flows.run import Refreshed
from flows.train import Trained, train
from warehouse.lineage import students


@dataclass(frozen=True, slots=True)
class Aligned:
    """The outcomes of the parts; None for a part that the recipe leaves out."""

    refreshed: Refreshed
    trained: Trained | None
    evaluated: Evaluated | None


@flow(name="align", flow_run_name="align {recipe.name}", persist_result=False, log_prints=False)
def align(recipe: Recipe, home: str | None = None) -> Aligned:
    """Refreshes the data, trains on it, and evaluates the models."""
    if recipe.evaluate:
        check_suites(recipe, check(recipe))
    refreshed = refresh(recipe, home)
    trained = train(recipe, home) if recipe.trainings else None
    checkpoints = students(trained.checkpoints.values()) if trained else []
    ids = [checkpoint.checkpoint_id for checkpoint in checkpoints]
    evaluated = evaluate(recipe, home, ids) if recipe.evaluate else None
    return Aligned(refreshed, trained, evaluated)
