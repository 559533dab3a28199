"""The arms of the paper's ablation side by side: each trained as it is to be, all evaluated alike.

Arms share every row and every checkpoint that they can: the completions of common prompts, the
fine-tuned model that two of them refine, the answers of a model that is there already.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from prefect import flow

from flows.evaluate import Evaluated, base_arm, check, check_suites, evaluate_arms
from flows.recipe import AblateConfig, ArmConfig, Recipe, RecipeError, with_changes
from flows.refresh import refresh
from flows.run import RunContext, home_at, open_run
from flows.train import train
from tasks.data.sources import SourceConfig
from tasks.evaluation.arms import ServedArm
from tasks.evaluation.evaluation import EvaluateConfig, probes_of
from warehouse.tables import Checkpoint

AnySource = TypeVar("AnySource", bound=SourceConfig)


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
    ablation = _ablation_of(recipe)
    recipe = _with_ablated_evaluation(recipe, ablation)
    config = check(recipe)
    check_suites(recipe, config)
    trained = _train_arms(recipe, ablation, home)
    with open_run("ablate", recipe, home_at(home)) as run:
        served = [arm for each in trained for arm in _served(run, config, each)]
        probed = {each.arm.name for each in trained if each.arm.faithfulness}
        probes = probes_of(config, [arm for arm in served if arm.arm.name in probed])
        return evaluate_arms(run, config, [*served, *probes])


def _ablation_of(recipe: Recipe) -> AblateConfig:
    """Returns the recipe's ablation, whose trainings the recipe describes."""
    ablation = recipe.ablate
    if ablation is None:
        raise RecipeError(f"recipe {recipe.name} has no arms; give it a section [[ablate.arms]]")
    if recipe.sft and recipe.sft.start:
        # Arms and seeds that continue from one another's checkpoints are no comparison.
        raise RecipeError(
            f"sft.start is {recipe.sft.start!r}, and an ablation trains every arm from the "
            "student; take sft.start and sft.replay out"
        )
    for arm in ablation.arms:
        changed = _changed(recipe, arm)
        if missing := next((stage for stage in arm.train if not getattr(changed, stage)), None):
            raise RecipeError(
                f"arm {arm.name!r} trains {missing}, which recipe {recipe.name} does not describe: "
                f"give it a section [{missing}], or the arm changes to it"
            )
        known = [source.name for source in (*recipe.sources, *recipe.traces)]
        if unknown := next((name for name in arm.without if name not in known), None):
            raise RecipeError(
                f"arm {arm.name!r} is to do without {unknown!r}; recipe {recipe.name} has "
                f"{', '.join(known)}"
            )
        if set(known) <= {*arm.without} and not arm.sources:
            raise RecipeError(f"arm {arm.name!r} is to do without all sources: leave it one")
    return ablation


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


def recipe_of(recipe: Recipe, ablation: AblateConfig, arm: ArmConfig, seed: int) -> Recipe:
    """Returns the recipe by which one arm is trained, with a name of its own if its data differ.

    Raises RecipeError if its changes cannot be made.
    """
    recipe = _changed(recipe, arm)
    more = [source for source in ablation.sources if source.name in arm.sources]
    changes: dict[str, object] = {
        "sources": [*_without(recipe.sources, arm), *more],
        "traces": _without(recipe.traces, arm),
        "ablate": None,
    }
    # Its examples are another set, and must not pass for those of the recipe itself.
    signs = [f"+{source.name}" for source in more] + [f"-{name}" for name in arm.without]
    signs += [f"+{''.join(change.split())}" for change in arm.data_changes]
    changes["name"] = recipe.name + "".join(signs)
    for stage in ("sft", "dpo", "rl"):
        config = getattr(recipe, stage)
        changes[stage] = config.model_copy(update={"seed": seed}) if stage in arm.train else None
    return recipe.model_copy(update=changes)


def _changed(recipe: Recipe, arm: ArmConfig) -> Recipe:
    """Returns the recipe with the arm's changes; raises RecipeError if they cannot be made."""
    try:
        return with_changes(recipe, arm.changes) if arm.changes else recipe
    except RecipeError as error:
        raise RecipeError(f"arm {arm.name!r}: {error}") from error


def _without(sources: list[AnySource], arm: ArmConfig) -> list[AnySource]:
    return [source for source in sources if source.name not in arm.without]


def _served(run: RunContext, config: EvaluateConfig, trained: _Trained) -> list[ServedArm]:
    """Returns an arm with every seed, and its first seed again under each limit of reasoning."""
    arm = trained.arm
    own = {"context": arm.context, "refine": arm.refine or config.refine}
    base = base_arm(run, config.model_copy(update=own), name=arm.name)
    seeds = [
        ServedArm.of_checkpoint(base, checkpoint, run.home, name=arm.name, seed=seed)
        for seed, checkpoint in trained.checkpoints.items()
    ]
    served = seeds or [base]
    return [*served, *(served[0].within(budget) for budget in arm.budgets)]
