"""The arms of the paper's ablation side by side: each trained as it is to be, all evaluated alike.

Arms share every row and every checkpoint that they can: the completions of common prompts, the
fine-tuned model that two of them refine, the answers of a model that is there already.
"""

from dataclasses import dataclass, replace

from prefect import flow

from flows.arms import Asked, check, find_marks, of_base, of_checkpoint
from flows.evaluate import Evaluated, evaluate_arms
from flows.recipe import SUITES, AblateConfig, ArmConfig, Recipe, RecipeError
from flows.refresh import refresh
from flows.run import RunContext, home_at, open_run
from flows.train import train
from tasks.evaluation import suites
from tasks.evaluation.grade import EvaluateConfig
from warehouse.tables import Checkpoint


@dataclass(frozen=True, slots=True)
class _Trained:
    """What an arm's training ended with, by seed; empty where it has none."""

    arm: ArmConfig
    checkpoints: dict[int, Checkpoint]


@flow(name="ablate", flow_run_name="ablate {recipe.name}", persist_result=False, log_prints=False)
def ablate(recipe: Recipe, home: str | None = None) -> Evaluated:
    """Refreshes, trains and evaluates every arm of the recipe's ablation; what is there stays."""
    ablation = recipe.ablate
    if ablation is None:
        raise RecipeError(f"recipe {recipe.name} has no arms; give it a section [[ablate.arms]]")
    for arm in ablation.arms:
        if missing := next((stage for stage in arm.train if not getattr(recipe, stage)), None):
            raise RecipeError(
                f"arm {arm.name!r} trains {missing}, which recipe {recipe.name} does not describe: "
                f"give it a section [{missing}]"
            )
    recipe = _as_ablated(recipe, ablation)
    config = check(recipe)
    # A suite that cannot be asked ends the ablation now, not after all training.
    marks = find_marks(recipe.engine, config)
    for name in config.suites:
        suites.build_suite(suites.load_suite(name, SUITES), marks=marks, limit=1)
    refreshed: set[str] = set()
    made = []
    for arm in ablation.arms:
        checkpoints = {}
        for seed in ablation.seeds if arm.train else []:
            wanted = _of_arm(recipe, ablation, arm, seed)
            if wanted.name not in refreshed:
                refresh(wanted, home)
                refreshed.add(wanted.name)
            checkpoints[seed] = list(train(wanted, home).checkpoints.values())[-1]
        made.append(_Trained(arm, checkpoints))
    with open_run("ablate", recipe, home_at(home)) as run:
        asked = [one for trained in made for one in _asked(run, trained)]
        probed = [trained.arm.name for trained in made if trained.arm.faithfulness]
        return evaluate_arms(run, asked, probed=probed)


def _as_ablated(recipe: Recipe, ablation: AblateConfig) -> Recipe:
    """The recipe with the evaluation of its ablation."""
    config = check(recipe)
    changes = {
        "suites": ablation.suites or config.suites,
        "samples": ablation.samples or config.samples,
        "faithfulness": ablation.faithfulness or config.faithfulness,
        "converse": ablation.converse or config.converse,
    }
    # What fits on its own need not fit together: it is checked as if it had been written so.
    changed = EvaluateConfig.model_validate(config.model_dump() | changes)
    return recipe.model_copy(update={"evaluate": changed})


def _of_arm(recipe: Recipe, ablation: AblateConfig, arm: ArmConfig, seed: int) -> Recipe:
    """The recipe as one arm has it."""
    more = [source for source in ablation.sources if source.name in arm.sources]
    changes: dict[str, object] = {"sources": [*recipe.sources, *more], "ablate": None}
    if more:
        # Its examples are another set, and must not pass for those of the recipe itself.
        changes["name"] = f"{recipe.name}+{'+'.join(source.name for source in more)}"
    for stage in ("sft", "dpo", "rl"):
        config = getattr(recipe, stage)
        changes[stage] = config.model_copy(update={"seed": seed}) if stage in arm.train else None
    return recipe.model_copy(update=changes)


def _asked(run: RunContext, trained: _Trained) -> list[Asked]:
    """An arm with every seed, and its first seed again under each limit of reasoning."""
    recipe, arm = run.recipe, trained.arm
    assert recipe.evaluate is not None
    config = recipe.evaluate.model_copy(update={"context": arm.context})
    if trained.checkpoints:
        found = [
            of_checkpoint(run, checkpoint, name=arm.name, config=config, seed=seed)
            for seed, checkpoint in trained.checkpoints.items()
        ]
    else:
        found = [of_base(run, config, name=arm.name)]
    return [*found, *(_limited(found[0], budget) for budget in arm.budgets)]


def _limited(asked: Asked, budget: int) -> Asked:
    """The same model, given less time to think."""
    config = asked.arm.config.model_copy(update={"budget": budget})
    name = f"{asked.arm.name}, {budget} tokens"
    return Asked(replace(asked.arm, name=name, config=config), asked.engine)
