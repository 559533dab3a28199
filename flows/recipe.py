"""Recipe: a whole run, read from TOML and checked before anything starts.

A recipe composes the configurations of the tasks. What defines the data is hashed into the rows;
how it is run (`stage`, the engines' sizes) is not. Unknown keys are refused by name.
"""

import copy
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from specs.criteria import check_criteria
from specs.pack import load_pack
from specs.policy import Pack, PackError
from specs.template import check_templates
from tasks import Config, require_own_names
from tasks.data.collect import CollectConfig
from tasks.data.curate import CurateConfig
from tasks.data.drafts import FillConfig
from tasks.data.drift import DriftConfig
from tasks.data.generate import GenerateConfig
from tasks.data.judge import JudgeConfig
from tasks.data.sources import SourceConfig
from tasks.data.traces import TraceConfig
from tasks.engine.model_check import CheckedModel, check_model
from tasks.engine.requests import EngineConfig
from tasks.evaluation.answer import Context
from tasks.evaluation.evaluation import EvaluateConfig
from tasks.evaluation.multiturn import MultiturnConfig
from tasks.evaluation.probes import FaithfulnessConfig
from tasks.paths import LocatedFile, LocatedFolder, find, places
from tasks.refine import RefineConfig
from tasks.stage import StageConfig
from tasks.training.dpo import DpoConfig
from tasks.training.midtrain import MidtrainConfig
from tasks.training.reward_model import RewardModelConfig
from tasks.training.rl import RlConfig
from tasks.training.sft import SftConfig
from warehouse.lineage import STAGE_TITLES

RECIPES = Path(__file__).parent / "recipes"
SUITES = Path(__file__).parent / "suites"


class RecipeError(ValueError):
    """A recipe that cannot be used; the message says which key and what to do."""


# The configurations of ablating and of the nightly refresh stand here and not beside their flows:
# those import Prefect, and a recipe must load without it.


STUDENT_TRAININGS = ("midtrain", "sft", "dpo", "rl")
"""Sections of a recipe that train the student, in their order."""
TRAININGS = ("midtrain", "sft", "dpo", "reward_model", "rl")
"""Sections of a recipe that train, in their order."""
_CHANGEABLE_SECTIONS = ("collect", "generate", "judge", "curate", *TRAININGS)
"""Sections of a recipe that an arm may change."""


class ArmConfig(Config):
    """One arm of an ablation: how its model is trained, and how it is asked."""

    name: str = Field(min_length=1)
    """Name in tables."""
    train: list[Literal["midtrain", "sft", "dpo", "reward_model", "rl"]] = []
    """Stages of training, of those the recipe describes. Empty: the base model."""
    sources: list[str] = []
    """Sources of `ablate.sources` that the arm is trained on beside the recipe's own."""
    without: list[str] = []
    """Sources and traces of the recipe that the arm is not trained on."""
    changes: list[str] = []
    """Overrides of the recipe for this arm's data and training, written as for `--set`, such as
    `sft.learn_on = "answer"`; a section that the recipe lacks is added."""
    context: Context = "none"
    """Policies in the prompt at inference: `none`, the `summary` of all, or the prompt's
    `category` in full."""
    budgets: list[Annotated[int, Field(ge=0)]] = []
    """Further limits of reasoning in tokens; the arm's first seed is asked under each."""
    refine: RefineConfig | None = None
    """Critique and revision of each answer before it counts. Unset: the first answer counts."""
    faithfulness: bool = False
    """Tamper with the reasoning of the arm's first seed, as `ablate.faithfulness` says."""

    @property
    def data_changes(self) -> dict[str, Any]:
        """The changes that give the arm data of its own: values by dotted keys."""
        parsed = dict(parse_change(change, origin="changes") for change in self.changes)
        return {key: parsed[key] for key in sorted(parsed) if _section(key) not in TRAININGS}

    @model_validator(mode="after")
    def _check(self) -> "ArmConfig":
        for change in self.changes:
            section, _, key = change.partition("=")[0].strip().partition(".")
            if section not in _CHANGEABLE_SECTIONS:
                raise ValueError(
                    f"arm {self.name!r} changes {change!r}, and all arms share that section; "
                    f"changes may set keys of {', '.join(_CHANGEABLE_SECTIONS)}"
                )
            if section in TRAININGS and section not in self.train:
                raise ValueError(
                    f"arm {self.name!r} changes {change!r} and does not train {section}: add it to "
                    "train, or leave the change out"
                )
            if section in TRAININGS and key.strip() == "seed":
                raise ValueError(
                    f"arm {self.name!r} changes {change!r}: set the seeds of all arms in "
                    "ablate.seeds"
                )
        if "reward_model" in self.train and "rl" not in self.train:
            raise ValueError(
                f"arm {self.name!r} trains reward_model and not rl, which alone is rewarded by it: "
                "add rl to train, or leave reward_model out"
            )
        if self.refine and self.refine.rules != "none" and self.context == "summary":
            raise ValueError(
                f"arm {self.name!r} shows its critiques rules that its prompt has in summary "
                "alone: set its context to category or none, or refine.rules to none"
            )
        lineage = "+".join(STAGE_TITLES[x] for x in STUDENT_TRAININGS if x in self.train)
        if self.refine and (self.budgets or self.faithfulness):
            key, use = ("budgets", "limit") if self.budgets else ("faithfulness", "tamper with")
            raise ValueError(
                f"arm {self.name!r} has both refine and {key}, and a revised answer has no single "
                f"reasoning to {use}: split it into two arms"
            )
        named = self.name.lower().split("+")
        if set(named) <= set(TRAININGS) and named != lineage.lower().split("+"):
            raise ValueError(
                f"arm {self.name!r} trains {lineage or 'nothing'}: a name of stages must be those "
                "that it trains, in their order"
            )
        return self


class AblateConfig(Config):
    """The arms of an ablation, side by side."""

    arms: list[ArmConfig] = Field(min_length=1)
    """Arms in the order of the tables."""
    only: list[str] = []
    """Names of the arms to train and evaluate. Empty: all."""
    seeds: list[int] = Field([1], min_length=1)
    """Seeds that every trained arm is trained with."""
    sources: list[SourceConfig] = []
    """Prompts that only some arms are trained on."""
    suites: list[LocatedFile] = []
    """Suites to ask. Empty: those of `evaluate.suites`."""
    samples: int | None = Field(None, gt=0)
    """Answers to each case. Unset: `evaluate.samples`."""
    faithfulness: FaithfulnessConfig | None = None
    """Tampering with reasoning. Unset: `evaluate.faithfulness`."""
    multiturn: MultiturnConfig | None = None
    """Attack over several turns on the arms. Unset: `evaluate.multiturn`."""

    @model_validator(mode="after")
    def _check(self) -> "AblateConfig":
        # An arm under a limit of its reasoning is an arm of its own, of this name.
        limited = [
            f"{arm.name}, {budget} tokens" for arm in self.arms for budget in set(arm.budgets)
        ]
        require_own_names("arms", [*(arm.name for arm in self.arms), *limited])
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"ablate.seeds has a seed twice: {self.seeds}; write each once")
        names = [arm.name for arm in self.arms]
        if unknown := next((name for name in self.only if name not in names), None):
            raise ValueError(f"ablate.only names {unknown!r}; the arms are {', '.join(names)}")
        known = [source.name for source in self.sources]
        for arm in self.arms:
            if len(set(arm.budgets)) < len(arm.budgets):
                raise ValueError(f"arm {arm.name!r} has a budget twice: {arm.budgets}")
            for key in ("sources", "without", "changes"):
                if getattr(arm, key) and not arm.train:
                    raise ValueError(
                        f"arm {arm.name!r} has {key} and trains nothing: give it train, or leave "
                        f"{key} out"
                    )
            if unknown := next((name for name in arm.sources if name not in known), None):
                raise ValueError(
                    f"arm {arm.name!r} names source {unknown!r}; ablate.sources has "
                    f"{', '.join(known) or 'none'}"
                )
        return self


class NightlyConfig(Config):
    """The refresh that a schedule starts."""

    cron: str = "0 2 * * *"
    """Start times, in cron's notation."""
    timezone: str = "UTC"
    """Time zone of `cron`, such as Europe/Berlin."""
    when_busy: Literal["queue", "cancel"] = "queue"
    """Fate of a run that starts while another of the deployment is in progress."""
    train_after: int | None = Field(None, gt=0)
    """New examples since the last training after which the recipe is trained. Unset: never."""
    hours: float = Field(12.0, gt=0)
    """Time limit in hours for each scheduled run, including time spent waiting for the warehouse's
    lock; it holds for runs of the other deployments as well."""
    hours_to_approve: float = Field(24.0, gt=0)
    """Hours that a held run waits for a person in the Prefect UI; later `precept approve` does."""


class Recipe(Config):
    """A whole run: policies, prompts, models, and what is asked of them."""

    name: str
    """Name of the recipe; its latest run says which rows are current. Unset: the file's name."""
    pack: LocatedFolder
    """Folder of the policy pack."""
    sources: list[SourceConfig] = []
    """Sources of prompts, to which the generator writes completions."""
    traces: list[TraceConfig] = []
    """Chains of thought and answers that were made elsewhere, with or without scores."""
    collect: CollectConfig = CollectConfig()
    """Cleaning of prompts: duplicates and contamination."""
    engine: EngineConfig = EngineConfig()
    """The model that generates."""
    judge_engine: EngineConfig | None = None
    """The model that judges. Unset: the generator judges as well, in the same warm engine."""
    judge_engines: list[EngineConfig] = []
    """The models of a jury, instead of `judge_engine`: a completion is accepted if all of them
    accept it. In a race each is asked only about what those before it let pass, so put the cheapest
    first. The first alone chooses categories, grades answers and is the reward of RL; in a
    calibration all of them grade."""
    student: EngineConfig | None = None
    """The model that is trained and evaluated. Unset: the generator is the student."""
    generate: GenerateConfig = GenerateConfig()
    """Number, template and sampling of completions."""
    judge: JudgeConfig = JudgeConfig()
    """Scoring of completions by the judge."""
    curate: CurateConfig = CurateConfig()
    """Choice of training rows among the accepted completions."""
    midtrain: MidtrainConfig | None = None
    """Training on documents that explain the policies, before SFT. Unset: this stage is skipped."""
    sft: SftConfig | None = None
    """Fine-tuning on the examples. Unset: this stage is skipped."""
    dpo: DpoConfig | None = None
    """Training on preference pairs, after SFT. Unset: this stage is skipped."""
    reward_model: RewardModelConfig | None = None
    """Training of the model that rewards RL in place of the judge, before RL and from the same
    model. It is trained only if `rl.reward.model` is true."""
    rl: RlConfig | None = None
    """Refinement by reinforcement learning, last. Unset: this stage is skipped."""
    evaluate: EvaluateConfig | None = None
    """Evaluation of models. Unset: `precept evaluate` is refused and `precept run` skips it."""
    calibrate: EvaluateConfig | None = None
    """The judges held against gold, on answers that all of them grade: each judge of a jury, and
    each grader with rubric `policy`. Unset: `precept calibrate` is refused."""
    ablate: AblateConfig | None = None
    """Arms of the ablation. Unset: `precept ablate` is refused."""
    fill: FillConfig = FillConfig()
    """Prompts that are written for the rules that few exercise, by `precept policies fill`."""
    drift: DriftConfig | None = None
    """The drift at which the judgements of a refresh are held for approval. Unset: none."""
    nightly: NightlyConfig = NightlyConfig()
    """Times and consequences of the nightly deployment."""
    stage: StageConfig = StageConfig()
    """Blocks and retries of the stages."""
    license: str | None = Field(None, min_length=1)
    """Licence of the data, for the card of `precept export dataset`: an identifier such as
    apache-2.0. Unset: the card says that none was given."""
    gpu_hour_price: float | None = Field(None, ge=0)
    """Price of a GPU-hour, in your currency. Unset: costs are given in GPU-hours alone."""

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        names = [source.name for source in self.all_sources]
        if not names:
            raise ValueError("sources is empty: add a [[sources]] or a [[traces]] section")
        require_own_names("sources", names)
        if self.judge_engines and self.judge_engine:
            raise ValueError(
                "judge_engine and judge_engines are both set: put all judges into judge_engines, "
                "or leave it out"
            )
        if self.student and "model" not in self.student.model_fields_set:
            raise ValueError("student names no model; set student.model")
        check_templates(self.generate.template)
        if self.judge.template != self.generate.template:
            check_templates(self.judge.template)
        check_criteria(self.judge.template)
        self.generate.sampling.require_variety("generate", self.generate.samples)
        if self.midtrain and self.sft and self.sft.start:
            raise ValueError(
                f"midtrain is set, and sft.start {self.sft.start!r} would continue from a "
                "checkpoint that learned other documents: take one of them out"
            )
        if self.rl and self.rl.reward.model and not self.reward_model:
            raise ValueError(
                "rl.reward.model is true and there is no section [reward_model], which trains that "
                "model: add it, or leave the key out for the judge"
            )
        share = self.rl.workers.judge_gpu_share if self.rl else None
        if share is not None and share < 1 and self.judging_engine.tensor_parallel_size > 1:
            raise ValueError(
                f"rl.workers.judge_gpu_share is {share:g}, and the judge is spread over "
                f"{self.judging_engine.tensor_parallel_size} GPUs by tensor_parallel_size, which "
                "it has for itself: leave one of the two out"
            )
        self._check_comparison()
        self.judge.sampling.require_variety("judge", self.judge.samples)
        return self

    def _check_comparison(self) -> None:
        """Raises ValueError if completions that are made for comparison could not be learned."""
        if self.generate.context == "none" and self.sft and self.curate.require_citation:
            raise ValueError(
                "generate.context is none, so that completions cite no rule, and "
                "curate.require_citation would leave all of them out: set it to false"
            )
        for name, training in (("sft", self.sft), ("dpo", self.dpo)):
            if self.generate.refine and training and training.learn_on == "all":
                raise ValueError(
                    f"generate.refine is set, and the reasoning of a revision speaks of its "
                    f"critique: set {name}.learn_on = 'answer'"
                )

    @property
    def all_sources(self) -> list[SourceConfig]:
        """Sources of prompts and of traces; those of traces last."""
        return [*self.sources, *self.traces]

    @property
    def judging_engine(self) -> EngineConfig:
        """The engine that judges; of a jury, the first."""
        return next(iter(self.judging_engines.values()))

    @property
    def judging_engines(self) -> dict[str, EngineConfig]:
        """The engines that judge, by the names of their sections, in the order of asking."""
        if self.judge_engines:
            return {f"judge_engines.{n}": one for n, one in enumerate(self.judge_engines)}
        return {"judge_engine": self.judge_engine} if self.judge_engine else {"engine": self.engine}

    @property
    def student_engine(self) -> EngineConfig:
        """The engine of the model that is trained and evaluated."""
        return self.student or self.engine

    @property
    def trainings(self) -> list[str]:
        """Sections of the recipe that train, in their order."""
        return [name for name in TRAININGS if getattr(self, name)]

    @property
    def suite_names(self) -> list[str]:
        """The suites that the recipe evaluates with, each once."""
        sections = (self.evaluate, self.calibrate, self.ablate)
        return list(dict.fromkeys(name for one in sections if one for name in one.suites))

    @property
    def assigns(self) -> bool:
        """True if the judge model is to choose the categories of a source."""
        return any(source.assign_category for source in self.all_sources)

    @property
    def judges(self) -> bool:
        """True if the judge model is to judge completions, or to choose their categories."""
        return bool(self.sources) or self.assigns or not all(one.judge for one in self.traces)

    @property
    def has_documents_generated(self) -> bool:
        """True if the generator is to write the documents of a midtraining."""
        return self.midtrain is not None and self.midtrain.function is None

    @property
    def engines(self) -> dict[str, EngineConfig]:
        """The engines by the names of their sections."""
        # Traces alone need no generator, but perhaps a judge.
        is_judge = self.judges and "engine" in self.judging_engines
        is_asked = self.sources or is_judge or self.has_documents_generated
        is_needed = is_asked or "engine" in self.model_fields_set
        engines = {
            "engine": self.engine if is_needed else None,
            **{name: one for name, one in self.judging_engines.items() if name != "engine"},
            "student": self.student,
        }
        return {name: engine for name, engine in engines.items() if engine is not None}

    def check_models(self) -> dict[str, CheckedModel]:
        """Returns the models of the engines by the names of their sections.

        Raises RecipeError in one sentence if an engine cannot serve its model.
        """
        models = {}
        for name, engine in self.engines.items():
            try:
                models[name] = check_model(engine)
            except ValueError as error:
                raise RecipeError(f"{name}: {error}") from error
        if self.judge_engines:
            require_own_versions([engine.version for engine in self.judge_engines])
        return models

    @property
    def pack_folder(self) -> Path:
        """The folder of the policy pack."""
        return find(self.pack, accept=Path.is_dir) or Path(self.pack)

    def require(self, command: str, *sections: str) -> None:
        """Raises RecipeError if the recipe has none of the sections, of which a command needs one;
        or if the command trains what the recipe cannot train."""
        names = [f"[{section}]" for section in sections]
        if sections and not any(getattr(self, section) for section in sections):
            wanted = " or ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
            raise RecipeError(
                f"recipe {self.name} has no section {wanted}, and precept {command} needs one: "
                "add it, or take a recipe that has it"
            )
        self._require_own_student(command)
        parser = self.student_engine.reasoning_parser
        if self.rl and command in ("train", "run") and parser:
            section = "student" if self.student else "engine"
            raise RecipeError(
                "rl needs a model whose reasoning stands between <think> tags, and "
                f"{section}.reasoning_parser is {parser!r}; take rl out"
            )

    def _require_own_student(self, command: str) -> None:
        """Raises RecipeError if the command trains a model behind an endpoint, or limits or tampers
        with its reasoning."""
        if self.student_engine.endpoint is None:
            return
        section = "student" if self.student else "engine"
        trainings = self.trainings
        arms = self.ablate.arms if self.ablate and command == "ablate" else []
        if command == "ablate" and not any(arm.train for arm in arms):
            trainings = []
        if trainings and command in ("train", "run", "ablate"):
            raise RecipeError(
                f"{trainings[0]} trains {section}.model, which stands behind {section}.endpoint; "
                f"name a model of your own as [student], or take {', '.join(trainings)} out"
            )
        for arm in arms:
            if arm.budgets or arm.faithfulness:
                key = "budgets" if arm.budgets else "faithfulness"
                raise RecipeError(
                    f"ablate.arms: {arm.name!r} has {key}, and the reasoning of a model behind "
                    f"{section}.endpoint can be neither limited nor given; take {key} out"
                )

    def load_pack(self) -> Pack:
        """Returns the policy pack; raises PackError if it cannot be used."""
        folder = find(self.pack, accept=Path.is_dir)
        if folder is None:
            raise PackError(
                f"no policy pack at {self.pack} ({places()}); give the folder of its Markdown files"
            )
        return load_pack(folder)


def require_own_versions(judges: Sequence[str]) -> None:
    """Raises RecipeError if two judges of a jury are the same model by their `name@revision`."""
    for number, version in enumerate(judges):
        if version in judges[:number]:
            raise RecipeError(
                f"judge_engines.{judges.index(version)} and judge_engines.{number} are the same "
                f"judge, {version}, whose votes would count twice: give another model or revision, "
                "or leave one out"
            )


def recipe_path(name: str | Path) -> Path:
    """Returns the file of a recipe, given by its path or by the name of a shipped one."""
    for path in (Path(name), RECIPES / f"{name}.toml"):
        if path.is_file():
            return path
    raise RecipeError(
        f"no recipe {str(name)!r}: give a TOML file or one of {', '.join(shipped_recipes())}"
    )


def shipped_recipes() -> list[str]:
    """Returns the names of the recipes that come with Precept."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(name: str | Path, *, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and checks a recipe; `overrides` are such as `judge.samples=8`.

    Raises RecipeError with one sentence a fault: the file, the key, what is wrong with it.
    """
    path = recipe_path(name)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error
    data.setdefault("name", path.stem)
    changed = copy.deepcopy(data)
    for override in overrides:
        _override(changed, override)
    # Relative paths in the recipe are looked up beside it first.
    context = {"folder": str(path.parent.absolute())}
    try:
        return Recipe.model_validate(changed, context=context)
    except ValidationError as error:
        own = {_sentence(fault) for fault in _faults(data, context)} if overrides else None
        faults = []
        for fault in error.errors():
            sentence = _sentence(fault)
            is_own = own is None or sentence in own
            faults.append(f"{path if is_own else _blamed(fault, overrides)}: {sentence}")
        raise RecipeError("; ".join(faults)) from error


def with_changes(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """Returns a recipe with some keys changed, each as `--set` would; raises RecipeError if they
    cannot be."""
    data = recipe.model_dump(by_alias=True, exclude_unset=True)
    for change in changes:
        _override(data, change, origin="changes")
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(map(_sentence, error.errors()))
        raise RecipeError(f"changes {', '.join(map(_shown, changes))}: {faults}") from error


def _faults(data: dict[str, Any], context: dict[str, str]) -> list[Any]:
    """Returns the faults of a recipe as its file has it."""
    try:
        Recipe.model_validate(data, context=context)
    except ValidationError as error:
        return list(error.errors())
    return []


def _blamed(fault: Mapping[str, Any], overrides: Sequence[str]) -> str:
    """Returns the overrides that a fault is due to: those at its place, or in its section."""
    place = [str(part) for part in fault["loc"]]

    def is_near(override: str) -> bool:
        key = override.partition("=")[0].strip().split(".")
        shared = min(len(key), len(place))
        return key[:shared] == place[:shared]

    near = [override for override in overrides if is_near(override)]
    return " ".join(f"--set {_shown(override)}" for override in near or overrides)


def _shown(override: str) -> str:
    """Returns an override as messages repeat it; of one for an endpoint, which may hold a key that
    belongs elsewhere, the name alone."""
    key, _, _ = override.partition("=")
    return f"{key}=…" if "endpoint" in override else override


def _section(key: str) -> str:
    return key.partition(".")[0]


def parse_change(text: str, *, origin: str) -> tuple[str, Any]:
    """Returns the dotted key and the value of "judge.samples=8"; a value that is not TOML is a
    string.

    Raises RecipeError, which names the `origin` of the text, if it has no key.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"{origin} {text!r} is not key=value; write it as judge.samples=8")
    try:
        given = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        given = {}
    # A line break in a text may make it look like further keys.
    return key.strip(), given["value"] if len(given) == 1 else value


def _override(data: dict[str, Any], text: str, *, origin: str = "--set") -> None:
    """Sets one dotted key; `origin` is named in messages."""
    key, parsed = parse_change(text, origin=origin)
    *parents, last = key.split(".")
    place: Any = data
    for depth, parent in enumerate(parents):
        place = _part_of(place, parent, ".".join(parents[:depth]) or "the recipe", origin)
    if isinstance(place, list):
        _part_of(place, last, ".".join(parents), origin)
        place[int(last)] = parsed
    elif isinstance(place, dict):
        place[last] = parsed
    else:
        raise RecipeError(f"{origin} {text!r}: {'.'.join(parents)!r} is not a section")


def _part_of(place: Any, key: str, where: str, origin: str) -> Any:
    """Returns the part of a recipe under a key; adds it if a section lacks it."""
    if isinstance(place, list):
        if not key.isdigit() or int(key) >= len(place):
            raise RecipeError(
                f"{origin}: {where!r} has {len(place)} entries, counted from 0; not {key}"
            )
        return place[int(key)]
    if not isinstance(place, dict):
        raise RecipeError(f"{origin}: {where!r} is not a section")
    return place.setdefault(key, {})


def _sentence(fault: Mapping[str, Any]) -> str:
    """Returns one fault of a validation as a sentence."""
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _fields_at(Recipe, fault["loc"][:-1])
        close = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(known)}"
        return f"unknown key {where!r}: {hint}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if not where:
        return message
    # A whole section is no help: the message says which of its keys.
    is_value = fault["type"] != "missing" and not isinstance(fault["input"], dict | list)
    # A key may stand where an address or the name of a variable belongs.
    is_value = is_value and fault["loc"][-1] not in ("endpoint", "url", "key_variable")
    return f"{where}: {message}" + (f" (given: {fault['input']!r})" if is_value else "")


def _fields_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Returns the names of the keys at a place of the recipe."""
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[str(part)].annotation
        options = [annotation, *get_args(annotation)]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(model.model_fields)
