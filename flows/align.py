"""The whole system on one screen: data, training, evaluation."""

from dataclasses import dataclass

from prefect import flow

from flows.evaluate import Evaluated, evaluate
from flows.recipe import Recipe
from flows.refresh import refresh
from flows.run import Refreshed
from flows.train import Trained, train


@dataclass(frozen=True, slots=True)
class Aligned:
    """What each part came to; null where the recipe does without it."""

    refreshed: Refreshed
    trained: Trained | None
    evaluated: Evaluated | None


@flow(name="align", flow_run_name="align {recipe.name}", persist_result=False, log_prints=False)
def align(recipe: Recipe, home: str | None = None) -> Aligned:
    """Refreshes the data, trains on it, and evaluates what came of it."""
    refreshed = refresh(recipe, home)
    trained = train(recipe, home) if recipe.sft or recipe.dpo or recipe.rl else None
    names = [one.checkpoint_id for one in trained.checkpoints.values()] if trained else []
    evaluated = evaluate(recipe, home, names) if recipe.evaluate else None
    return Aligned(refreshed, trained, evaluated)
