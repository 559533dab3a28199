"""The arms of the paper's ablation side by side: each trained as it is to be, all evaluated alike.

Arms share every row and every checkpoint that they can: the completions of common prompts, the
fine-tuned model that two of them refine, the answers of a model that is there already.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from prefect import flow

from flows.arms import ablation_of, recipe_of
from flows.evaluate import Evaluated, base_arm, check, check_suites, evaluate_arms
from flows.recipe import AblateConfig, ArmConfig, Recipe
from flows.refresh import refresh
from flows.run import RunContext, home_at, open_run
from flows.train import train
from tasks.evaluation.arms import ServedArm
from tasks.evaluation.evaluation import EvaluateConfig, probes_of
from warehouse.tables import Checkpoint


@dataclass(frozen=True, slots=True)
class _Trained:
    """An arm of the ablation with the checkpoints of its training."""

    arm: ArmConfig
    checkpoints: Mapping[int, Checkpoint]
    """The last checkpoint by seed. Empty: the arm trains nothing."""


@flow(name="ablate", flow_run_name="ablate {recipe.name}", persist_result=False, log_prints=False)
def ablate(recipe: Recipe, home: str | None = None) -> Evaluated:
    """Refreshes, trains and evaluates every arm of the recipe's ablation; makes only what is
    missing.

    Raises RecipeError if the recipe has no ablation, or does not describe a training of an arm.
    """
    ablation = ablation_of(recipe)
    recipe = _with_ablated_evaluation(recipe, ablation)
    config = check(recipe)
    check_suites(recipe, config)
    trained = _train_arms(recipe, ablation, home)
    with open_run("ablate", recipe, home_at(home)) as run:
        served = [_served(run, config, each) for each in trained]
        first_seeds = [
            arms[0] for each, arms in zip(trained, served, strict=True) if each.arm.faithfulness
        ]
        probes = probes_of(config, first_seeds)
        return evaluate_arms(run, config, [*(arm for arms in served for arm in arms), *probes])


def _with_ablated_evaluation(recipe: Recipe, ablation: AblateConfig) -> Recipe:
    """Returns the recipe with the evaluation of its ablation."""
    config = check(recipe)
    changes = {
        "suites": ablation.suites or config.suites,
        "samples": ablation.samples or config.samples,
        "faithfulness": ablation.faithfulness or config.faithfulness,
        "multiturn": ablation.multiturn or config.multiturn,
    }
    # Settings that fit on their own need not fit together: they are checked as if written so.
    changed = EvaluateConfig.model_validate(config.model_dump() | changes)
    return recipe.model_copy(update={"evaluate": changed})


def _train_arms(recipe: Recipe, ablation: AblateConfig, home: str | None) -> list[_Trained]:
    """Refreshes and trains every arm with every seed."""
    refreshed: set[str] = set()
    trained = []
    for arm in ablation.arms:
        checkpoints = {}
        for seed in ablation.seeds if arm.train else []:
            own = recipe_of(recipe, ablation, arm, seed)
            if own.name not in refreshed:
                refresh(own, home)
                refreshed.add(own.name)
            checkpoints[seed] = list(train(own, home).checkpoints.values())[-1]
        trained.append(_Trained(arm, checkpoints))
    return trained


def _served(run: RunContext, config: EvaluateConfig, trained: _Trained) -> list[ServedArm]:
    """Returns an arm with every seed, and its first seed again under each limit of reasoning."""
    arm = trained.arm
    asked = config.model_copy(update={"context": arm.context})
    base = base_arm(run, asked, name=arm.name, refine=arm.refine)
    seeds = [
        ServedArm.of_checkpoint(base, checkpoint, run.home, name=arm.name, seed=seed)
        for seed, checkpoint in trained.checkpoints.items()
    ]
    served = seeds or [base]
    return [*served, *(served[0].within(budget) for budget in arm.budgets)]
