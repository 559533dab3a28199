"""Recipes of the arms of an ablation: what each arm is trained on, and how."""

import json
from typing import TypeVar

from flows.recipe import (
    TRAININGS,
    AblateConfig,
    ArmConfig,
    Recipe,
    RecipeError,
    with_changes,
)
from tasks.data.sources import SourceConfig

AnySource = TypeVar("AnySource", bound=SourceConfig)


def ablation_of(recipe: Recipe) -> AblateConfig:
    """Returns the recipe's ablation with the arms that it is to make, all of which can be made.

    Raises RecipeError in one sentence if one cannot.
    """
    ablation = recipe.ablate
    if ablation is None:
        raise RecipeError(f"recipe {recipe.name} has no arms; give it a section [[ablate.arms]]")
    if ablation.only:
        chosen = [arm for arm in ablation.arms if arm.name in ablation.only]
        ablation = ablation.model_copy(update={"arms": chosen})
    for arm in ablation.arms:
        changed = changed_by(recipe, arm)
        if changed.sft and changed.sft.start:
            # Arms and seeds that continue from one another's checkpoints are no comparison.
            raise RecipeError(
                f"sft.start is {changed.sft.start!r}, and an ablation trains every arm from the "
                "student; take sft.start and sft.replay out"
            )
        if arm.refine and recipe.evaluate and recipe.evaluate.budget is not None:
            raise RecipeError(
                f"arm {arm.name!r} has refine, and evaluate.budget would limit its first answer "
                "alone: take one of them out"
            )
        if missing := next((stage for stage in arm.train if not getattr(changed, stage)), None):
            raise RecipeError(
                f"arm {arm.name!r} trains {missing}, which recipe {recipe.name} does not describe: "
                f"add a section [{missing}] to the recipe, or set its keys in the arm's changes"
            )
        if changed.rl and changed.rl.reward.model != bool(changed.reward_model):
            raise RecipeError(
                f"arm {arm.name!r} trains {', '.join(arm.train)}, and its rl.reward.model is "
                f"{str(changed.rl.reward.model).lower()}: set it to true in the arm's changes and "
                "train reward_model, or do neither"
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


def recipe_of(recipe: Recipe, ablation: AblateConfig, arm: ArmConfig, seed: int) -> Recipe:
    """Returns the recipe by which one arm is trained, with a name of its own if its data differ.

    Raises RecipeError if its changes cannot be made.
    """
    recipe = changed_by(recipe, arm)
    more = [source for source in ablation.sources if source.name in arm.sources]
    changes: dict[str, object] = {
        "sources": [*_without(recipe.sources, arm), *more],
        "traces": _without(recipe.traces, arm),
        "ablate": None,
    }
    # Its examples are another set, and must not pass for those of the recipe itself.
    signs = [f"+{source.name}" for source in more] + [f"-{name}" for name in arm.without]
    signs += [f"+{key}={json.dumps(value, default=str)}" for key, value in arm.data_changes.items()]
    changes["name"] = recipe.name + "".join(signs)
    for stage in arm.train:
        changes[stage] = getattr(recipe, stage).model_copy(update={"seed": seed})
    return recipe.model_copy(update=changes)


def changed_by(recipe: Recipe, arm: ArmConfig) -> Recipe:
    """Returns the recipe with the arm's changes, and without trainings that are not the arm's.

    Raises RecipeError if the changes cannot be made.
    """
    others = {name: None for name in TRAININGS if name not in arm.train}
    own = recipe.model_copy(update=others)
    try:
        return with_changes(own, arm.changes) if arm.changes else own
    except RecipeError as error:
        raise RecipeError(f"arm {arm.name!r}: {error}") from error


def _without(sources: list[AnySource], arm: ArmConfig) -> list[AnySource]:
    return [source for source in sources if source.name not in arm.without]
