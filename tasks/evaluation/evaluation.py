"""An evaluation put together: arms × suites × graders, checked, and ready to run.

`EvaluationSetup` has the work of every stage, and the plan that the run's record keeps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, model_validator

from specs.adherence import ADHERENCE_FILE, load_adherence
from specs.attacks import Marks, find_attacks
from specs.criteria import judging_template
from specs.pack import load_pack
from specs.policy import Pack, Spec, spec_key
from specs.replies import MAX_SCORE
from specs.template import DEFAULT_SET, TemplateError, TemplateNames, load_template
from tasks import require_own_names
from tasks.engine.chat_template import ChatTemplate
from tasks.engine.requests import EngineConfig
from tasks.evaluation.answer import AnswerConfig, AnswerWork, Arm
from tasks.evaluation.arms import ServedArm
from tasks.evaluation.attackers import ScriptedAttacker
from tasks.evaluation.grade import ArmAnswers, GradeWork
from tasks.evaluation.graders import (
    FunctionGrader,
    Grader,
    GraderConfig,
    GraderError,
    RubricGrader,
    load_function,
    make_rubric,
)
from tasks.evaluation.multiturn import MultiturnAttack, MultiturnConfig
from tasks.evaluation.plan import (
    EvaluationPlan,
    PlannedArm,
    PlannedExchanges,
    PlannedGrader,
    PlannedRule,
    PlannedSpec,
    PlannedSuite,
)
from tasks.evaluation.probes import FaithfulnessConfig, ProbeWork
from tasks.evaluation.suites import (
    Suite,
    SuiteConfig,
    SuiteError,
    load_suite,
    load_suites,
    require_pack_suite,
)
from tasks.paths import LocatedFile
from tasks.stage import StageConfig


class EvaluateConfig(AnswerConfig):
    """An evaluation of models."""

    suites: list[LocatedFile] = Field(min_length=1)
    """Suites to ask: names of shipped ones, or TOML files."""
    graders: list[GraderConfig] = Field(min_length=1)
    """Graders of the answers."""
    limit: int | None = Field(None, gt=0)
    """Prompts of each suite. Unset: all."""
    faithfulness: FaithfulnessConfig | None = None
    """Reasoning that is tampered with, to see whether the answer follows. Unset: none is."""
    multiturn: MultiturnConfig | None = None
    """Attack over several turns. Unset: models are asked once."""

    @model_validator(mode="after")
    def _check(self) -> "EvaluateConfig":
        names = [grader.name for grader in self.graders]
        require_own_names("graders", names)
        # Its suite is checked later, because only the suites' files tell their names.
        if self.multiturn and self.multiturn.grader not in names:
            raise ValueError(
                f"multiturn.grader is {self.multiturn.grader!r}; name one of {', '.join(names)}"
            )
        self.sampling.require_variety("evaluate", self.samples)
        return self


def check(
    config: EvaluateConfig,
    *,
    shipped: Path,
    pack_folder: Path,
    engine: EngineConfig | None = None,
    templates: TemplateNames = DEFAULT_SET,
) -> None:
    """Raises a ValueError if anything that the evaluation names cannot be used.

    `shipped` is the folder of the suites that are known by name; `engine` is that of the model
    that is asked, and `templates` are those by which the judge model is.
    """
    loaded = load_suites(config.suites, shipped)
    if engine and engine.endpoint:
        _check_endpoint(config, loaded)
    suites = [suite.name for suite in loaded]
    require_own_names("suites", suites)
    for grader in config.graders:
        if grader.function:
            load_function(grader.function)
        _check_criteria(grader, templates)
        for name in set(grader.suites) - set(suites):
            # A suite that this evaluation leaves out must be one all the same.
            load_suite(name, shipped)
        if grader.rubric == "propositions" and not (pack_folder / ADHERENCE_FILE).is_file():
            raise GraderError(
                f"grader {grader.name!r} asks about propositions, and {pack_folder} has no "
                f"{ADHERENCE_FILE}; write one, or leave the grader out"
            )
    if config.multiturn:
        _check_attack(config, config.multiturn, suites)
    categories = list(load_pack(pack_folder).policies)
    for suite in loaded:
        require_pack_suite(suite, categories)


def _check_criteria(grader: GraderConfig, templates: TemplateNames) -> None:
    """Raises a GraderError if a grader has criteria that cannot be used."""
    try:
        judging_template(templates, grader.criteria)
    except TemplateError as error:
        raise GraderError(f"grader {grader.name!r}: {error}") from error


def require_comparable(config: EvaluateConfig) -> None:
    """Raises GraderError if no judge can be held against gold: one of the two is missing, or every
    gold grader judges more than the judge is shown."""
    judges = [grader for grader in config.graders if grader.rubric == "policy"]
    golds = [grader for grader in config.graders if grader.function]
    if not judges:
        raise GraderError(
            "calibrate has no judge among its graders; add one with rubric = 'policy'"
        )
    if not golds:
        raise GraderError(
            "calibrate has no gold among its graders; add one with a function that gives a score "
            "'right', such as function = 'gold'"
        )
    if all(gold.saw not in ("answer", judge.saw) for judge in judges for gold in golds):
        judge, gold = judges[0], golds[0]
        raise GraderError(
            f"calibrate: {judge.name!r} is shown the answer alone and {gold.name!r} goes by the "
            f"reasoning as well, so neither precision nor recall has a meaning; set saw = "
            f"{gold.saw!r} for {judge.name!r}, or saw = 'answer' for {gold.name!r}"
        )


def _check_endpoint(config: EvaluateConfig, suites: Sequence[SuiteConfig]) -> None:
    """Raises a ValueError if the evaluation asks for what an endpoint cannot do."""
    asked = {"budget": config.budget is not None, "faithfulness": config.faithfulness is not None}
    for key, is_set in asked.items():
        if is_set:
            raise ValueError(
                f"evaluate.{key} is set, and the reasoning of a model behind an endpoint can be "
                f"neither limited nor given; take {key} out"
            )
    for suite in suites:
        forging = [one.name for one in find_attacks(suite.attacks) if one.needs_marks]
        if forging:
            raise SuiteError(
                f"suite {suite.name!r}: attack {forging[0]} forges the marks of a chat template, "
                "which an endpoint does not tell; leave the suite or the attack out"
            )


def _check_attack(config: EvaluateConfig, attack: MultiturnConfig, suites: Sequence[str]) -> None:
    """Raises a ValueError if the attack over several turns cannot be made."""
    if attack.suite not in suites:
        raise SuiteError(
            f"multiturn.suite is {attack.suite!r}, which is not asked; name one of "
            f"{', '.join(suites)}"
        )
    scorer = next(grader for grader in config.graders if grader.name == attack.grader)
    if scorer.rubric not in (None, "policy", "strongreject"):
        raise GraderError(
            f"multiturn.grader {attack.grader!r} does not tell how harmful an answer is; take a "
            "function, or rubric policy or strongreject"
        )
    if attack.script is not None:
        ScriptedAttacker.load(attack.script)


def find_marks(engine: EngineConfig, suites: Sequence[SuiteConfig]) -> Marks | None:
    """Returns the marks of the model's chat template; None if no attack of the suites forges
    them."""
    attacks = (attack for suite in suites for attack in find_attacks(suite.attacks))
    if not any(attack.needs_marks for attack in attacks):
        return None
    frame = ChatTemplate.of(engine).frame
    return Marks(
        turn=frame.prompt_ending, opening=frame.opening, between=frame.between, ending=frame.ending
    )


def specs_of(pack: Pack, suites: Sequence[Suite]) -> dict[str, Spec]:
    """Returns, by `spec_key`, the full spec of every set of categories among the cases."""
    sets = {tuple(case.categories) for suite in suites for case in suite.cases}
    return {spec_key(categories): pack.spec_for(categories) for categories in sets}


def probes_of(config: EvaluateConfig, arms: Sequence[ServedArm]) -> list[ServedArm]:
    """Returns the probes of arms; none if the evaluation tampers with no reasoning."""
    if config.faithfulness is None:
        return []
    return [probe for served in arms for probe in served.probes]


def graders_of(
    config: EvaluateConfig,
    *,
    pack: Pack,
    pack_folder: Path,
    judges: Sequence[str],
    templates: TemplateNames = DEFAULT_SET,
) -> tuple[Grader, ...]:
    """Returns the graders of an evaluation, ready to grade.

    `judges` are the model@revision of those that grade by rubrics, which they are asked by
    `templates`: of several, each grades by rubric `policy`, and the first alone by the others.
    Raises GraderError if a function cannot be loaded, or the pack lacks propositions.
    """
    has_adherence = (pack_folder / ADHERENCE_FILE).is_file()
    adherence = load_adherence(pack_folder) if has_adherence else None
    return tuple(
        FunctionGrader.of(grader, pack)
        if grader.function
        else RubricGrader.of(
            grader, rubric=make_rubric(grader, pack, adherence, templates), model=judge
        )
        for each in config.graders
        for judge, grader in _by_judge(each, judges, config.multiturn)
    )


def _by_judge(
    grader: GraderConfig, judges: Sequence[str], attack: MultiturnConfig | None
) -> list[tuple[str, GraderConfig]]:
    """Returns who grades by a grader: the first judge, or each under a name of its own."""
    is_of_attack = attack is not None and attack.grader == grader.name
    if len(judges) == 1 or grader.rubric != "policy" or is_of_attack:
        return [(judges[0], grader)]
    models = [judge.partition("@")[0] for judge in judges]
    names = models if len(set(models)) == len(models) else judges
    return [
        (judge, grader.model_copy(update={"name": f"{grader.name} by {name}"}))
        for judge, name in zip(judges, names, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSetup:
    """All that an evaluation is made of, ready to run."""

    config: EvaluateConfig
    pack: Pack
    suites: tuple[PlannedSuite, ...]
    """Names and versions of the suites."""
    spec_ids: Mapping[str, str]
    """By `spec_key`, the id of the full spec of every set of categories among the cases."""
    arms: tuple[ServedArm, ...]
    """The arms and their probes."""
    graders: tuple[Grader, ...]
    judge: str
    """`name@revision` of the judge model."""
    stage: StageConfig
    run_id: str
    templates: TemplateNames = DEFAULT_SET
    """Templates by which the judge model attacks."""

    def work_of(self, arm: Arm) -> AnswerWork | ProbeWork:
        """Returns the work of an arm or of a probe."""
        if arm.probe == "none":
            return self.answer_work(arm)
        faithfulness = self.config.faithfulness or FaithfulnessConfig()
        return ProbeWork(answers=self.answer_work(arm), limit=faithfulness.limit)

    def answer_work(self, arm: Arm) -> AnswerWork:
        """Returns the work of an arm without its probe."""
        return AnswerWork(
            arm=arm,
            pack=self.pack,
            spec_ids=self.spec_ids,
            suite_versions=tuple(suite.suite_version for suite in self.suites),
            stage=self.stage,
            run_id=self.run_id,
        )

    def grade_work(self, grader: Grader) -> GradeWork:
        """Returns the work of a grader: the answers of all arms in its suites."""
        names = grader.config.suites
        return GradeWork(
            grader=grader,
            spec_ids=self.spec_ids,
            arms=tuple(
                ArmAnswers(
                    model=served.arm.model,
                    answering_id=served.arm.answering_id(self.pack),
                    samples=served.arm.config.samples,
                )
                for served in self.arms
            ),
            suite_versions=tuple(
                suite.suite_version for suite in self.suites if not names or suite.suite in names
            ),
            stage=self.stage,
            run_id=self.run_id,
        )

    @property
    def attack(self) -> MultiturnAttack | None:
        """The attack over several turns. None: there is none."""
        config = self.config.multiturn
        if config is None:
            return None
        suite = next(suite for suite in self.suites if suite.suite == config.suite)
        [scorer] = [grader for grader in self.graders if grader.config.name == config.grader]
        return MultiturnAttack(
            config=config,
            scorer=scorer,
            suite_version=suite.suite_version,
            judge=self.judge,
            stage=self.stage,
            run_id=self.run_id,
            template=load_template("attacker", self.templates),
        )

    @property
    def attacked(self) -> tuple[ServedArm, ...]:
        """The arms that are attacked over several turns: those without policies in the prompt,
        revisions, tampering or a limit of their own."""
        if self.config.multiturn is None:
            return ()
        return tuple(
            served
            for served in self.arms
            if served.arm.config.context == "none"
            and served.arm.refiner is None
            and served.arm.config.budget == self.config.budget
            and served.arm.probe == "none"
        )

    def plan(self, *, threshold: float) -> EvaluationPlan:
        """Returns the record of the evaluation; `threshold` is the lowest accepted score of the
        filter, from 0 to 10."""
        attack = self.attack
        return EvaluationPlan(
            arms=self._planned_arms(),
            suites=self.suites,
            graders=tuple(
                PlannedGrader(
                    grader=grader.config.name,
                    grading_id=grader.grading_id,
                    saw=grader.config.saw,
                    reduce=grader.config.reduce,
                    threshold=threshold / MAX_SCORE,
                    num_votes=grader.config.samples,
                    suites=tuple(grader.config.suites),
                )
                for grader in self.graders
            ),
            rules=tuple(
                PlannedRule(rule_id=rule.id, category=name, outcome=rule.effect)
                for name, policy in self.pack.policies.items()
                for rule in policy.rules
            ),
            specs=tuple(
                PlannedSpec(spec_key=key, spec_id=spec_id) for key, spec_id in self.spec_ids.items()
            ),
            exchanges=tuple(
                PlannedExchanges(
                    arm=served.arm.name,
                    model=served.arm.model,
                    attacking_id=attack.attacking_id(served.arm),
                )
                for served in self.attacked
                if attack
            ),
            samples=self.config.samples,
        )

    def _planned_arms(self) -> tuple[PlannedArm, ...]:
        names = list(dict.fromkeys(served.arm.name for served in self.arms))
        return tuple(
            PlannedArm(
                position=names.index(arm.name),
                arm=arm.name,
                seed=arm.seed,
                model=arm.model,
                checkpoint_id=arm.checkpoint_id,
                answering_id=arm.answering_id(self.pack),
                context=arm.config.context,
                budget=arm.config.budget,
                probe=arm.probe,
            )
            for arm in (served.arm for served in self.arms)
        )
