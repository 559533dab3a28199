"""What an evaluation is made of: arms with the engines that serve them, graders, and the record of
both that every table is asked for by.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flows.recipe import SUITES, Recipe, RecipeError
from flows.run import RunContext
from specs.adherence import ADHERENCE_FILE, Adherence, load_adherence
from specs.attacks import Marks, find_attacks
from specs.policy import spec_key
from specs.rubrics import PolicyRubric, Rubric
from tasks.engine.chat_template import ChatTemplate
from tasks.engine.requests import EngineConfig
from tasks.evaluation import answer as answering
from tasks.evaluation import grade as evaluating
from tasks.evaluation import graders as grading
from tasks.evaluation import multiturn as conversing
from tasks.evaluation import suites
from tasks.evaluation.answer import Arm
from warehouse.models import fetch_folder
from warehouse.tables import Checkpoint


@dataclass(frozen=True, slots=True)
class Asked:
    """An arm with the engine that serves its model."""

    arm: Arm
    engine: EngineConfig


def check(recipe: Recipe) -> evaluating.EvaluateConfig:
    """The recipe's evaluation, refused where anything of it cannot be used."""
    config = recipe.evaluate
    if config is None:
        raise RecipeError(f"recipe {recipe.name} evaluates nothing; give it a section [evaluate]")
    for grader in config.graders:
        if grader.function:
            grading.load_grader(grader.function)
    names = [suites.load_suite(name, SUITES).name for name in config.suites]
    for grader in config.graders:
        for name in grader.suites:
            if name not in names:
                # It may be asked at another time, but it must be one.
                suites.load_suite(name, SUITES)
        if grader.rubric == "propositions" and not (recipe.pack_folder / ADHERENCE_FILE).is_file():
            raise RecipeError(
                f"grader {grader.name!r} asks about propositions, and {recipe.pack_folder} has no "
                f"{ADHERENCE_FILE}; write one, or leave the grader out"
            )
    if talk := config.converse:
        if talk.suite not in names:
            raise RecipeError(
                f"converse.suite is {talk.suite!r}; asked are {', '.join(names)}: name one of them"
            )
        scorer = next(grader for grader in config.graders if grader.name == talk.grader)
        if scorer.rubric not in (None, "policy", "strongreject"):
            raise RecipeError(
                f"converse.grader {talk.grader!r} does not tell how harmful an answer is; take a "
                "function, or rubric policy or strongreject"
            )
        if talk.script is not None:
            conversing.ScriptedAttacker.load(talk.script)
    return config


def of_base(
    run: RunContext, config: answering.AnswerConfig, *, name: str, model: str | None = None
) -> Asked:
    """The recipe's own model, untrained, as an arm; `model` where its answers are there already."""
    arm = Arm(
        name=name,
        model=model or run.version(run.recipe.engine),
        checkpoint_id=None,
        seed=None,
        config=config,
    )
    return Asked(arm, run.recipe.engine)


def of_checkpoint(
    run: RunContext,
    checkpoint: Checkpoint,
    *,
    name: str,
    config: answering.AnswerConfig,
    seed: int | None = None,
) -> Asked:
    """A trained model as an arm."""
    folder = fetch_folder(run.home, checkpoint.path)
    arm = Arm(
        name=name,
        model=checkpoint.model,
        checkpoint_id=checkpoint.checkpoint_id,
        seed=seed,
        config=config,
    )
    return Asked(arm, run.recipe.engine.with_model(str(folder)))


def probes_of(recipe: Recipe, asked: Asked) -> list[Asked]:
    """The arm again with its reasoning tampered with; rules are edited where it is shown them."""
    if recipe.evaluate is None or recipe.evaluate.faithfulness is None:
        return []
    shown = asked.arm.config.context == "category"
    return [
        replace(asked, arm=replace(asked.arm, probe=probe, config=_once(asked.arm.config)))
        for probe in answering.PROBES
        if shown or probe != "edited"
    ]


def _once(config: answering.AnswerConfig) -> answering.AnswerConfig:
    return config.model_copy(update={"samples": 1})


def find_marks(engine: EngineConfig, config: evaluating.EvaluateConfig) -> Marks | None:
    """The marks of the model's chat template, where a suite has attacks that forge them."""
    wanted = [suites.load_suite(name, SUITES) for name in config.suites]
    if not any(attack.needs_marks for one in wanted for attack in find_attacks(one.attacks)):
        return None
    frame = ChatTemplate.of(engine).frame
    return Marks(
        turn=frame.prompt_ending, opening=frame.opening, between=frame.between, ending=frame.ending
    )


@dataclass(frozen=True, slots=True)
class Grader:
    """A grader of the recipe, ready to be asked."""

    config: grading.GraderConfig
    rubric: Rubric | None
    grading_id: str
    spec_ids: dict[str, str]
    """By categories, the spec that it is shown; empty where it is shown none."""


def specs_of(run: RunContext, built: Sequence[suites.Suite]) -> dict[str, str]:
    """The spec of every set of categories that is asked about, which is stored: by the categories
    joined with `+`, the spec's id."""
    sets = {tuple(case.categories) for suite in built for case in suite.cases}
    specs = {spec_key(one): run.pack.spec_for(one) for one in sets}
    run.store_specs([run.pack.spec([], detail="summary"), *specs.values()])
    return {key: spec.id for key, spec in specs.items()}


def graders_of(run: RunContext, specs: Mapping[str, str]) -> list[Grader]:
    """The recipe's graders; `specs` are those of `specs_of`."""
    recipe = run.recipe
    assert recipe.evaluate is not None
    file = recipe.pack_folder / ADHERENCE_FILE
    adherence: Adherence | None = load_adherence(recipe.pack_folder) if file.is_file() else None
    model = run.version(recipe.judging_engine)
    graders = []
    for config in recipe.evaluate.graders:
        rubric = grading.make_rubric(config, run.pack, adherence) if config.rubric else None
        name = grading.grading_id(config, model=model, rubric=rubric)
        shown = dict(specs) if isinstance(rubric, PolicyRubric) else {}
        graders.append(Grader(config, rubric, name, shown))
    return graders


def plan(
    run: RunContext,
    asked: Sequence[Asked],
    built: Sequence[suites.Suite],
    specs: Mapping[str, str],
    graders: Sequence[Grader],
    conversations: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """What the evaluation is made of, as the views over it read it."""
    recipe = run.recipe
    assert recipe.evaluate is not None
    places = {
        name: place for place, name in enumerate(dict.fromkeys(one.arm.name for one in asked))
    }
    return {
        "arms": [
            {
                "position": places[one.arm.name],
                "arm": one.arm.name,
                "seed": one.arm.seed,
                "model": one.arm.model,
                "checkpoint_id": one.arm.checkpoint_id,
                "answering_id": one.arm.answering_id(run.pack),
                "context": one.arm.config.context,
                "budget": one.arm.config.budget,
                "probe": one.arm.probe,
            }
            for one in asked
        ],
        "specs": [{"spec_key": key, "spec_id": spec_id} for key, spec_id in specs.items()],
        "suites": [{"suite": one.name, "suite_version": one.version} for one in built],
        "graders": [
            {
                "grader": one.config.name,
                "grading_id": one.grading_id,
                "saw": one.config.saw,
                "reduce": one.config.reduce,
                "threshold": recipe.judge.threshold / 10,
                "num_votes": one.config.samples,
                "suites": one.config.suites,
            }
            for one in graders
        ],
        "rules": [
            {"rule_id": rule.id, "category": name, "outcome": rule.outcome.value}
            for name, policy in run.pack.policies.items()
            for rule in policy.rules
        ],
        "samples": recipe.evaluate.samples,
        "conversations": [dict(one) for one in conversations],
    }
