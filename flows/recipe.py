"""Recipe: a whole run, read from TOML and checked before anything starts.

A recipe composes the configurations of the tasks. What defines the data is hashed into the rows;
how it is run (`stage`, the engines' sizes) is not. Unknown keys are refused by name.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from specs.pack import load_pack
from specs.policy import Pack
from tasks import Config
from tasks.data.collect import CollectConfig
from tasks.data.curate import CurateConfig
from tasks.data.generate import GenerateConfig
from tasks.data.judge import JudgeConfig
from tasks.data.sources import SourceConfig
from tasks.engine.requests import EngineConfig
from tasks.evaluation.answer import Context
from tasks.evaluation.grade import EvaluateConfig, FaithfulnessConfig
from tasks.evaluation.multiturn import MultiturnConfig
from tasks.paths import PROJECT
from tasks.stage import StageConfig
from tasks.training.dpo import DpoConfig
from tasks.training.rl import RlConfig
from tasks.training.sft import SftConfig

RECIPES = Path(__file__).parent / "recipes"
SUITES = Path(__file__).parent / "suites"


class RecipeError(ValueError):
    """A recipe that cannot be used; the message says which key and what to do."""


class ArmConfig(Config):
    """One arm of an ablation: how its model is made, and how it is asked."""

    name: str = Field(min_length=1)
    """What tables call it."""
    train: list[Literal["sft", "dpo", "rl"]] = []
    """Stages of training that it has, of those the recipe describes; none: the base model."""
    sources: list[str] = []
    """Sources of `ablate.sources` that it is trained on beside the recipe's own."""
    context: Context = "none"
    """What of the policies stands in the prompt at inference."""
    budgets: list[Annotated[int, Field(ge=0)]] = []
    """Limits of reasoning that it is asked under as well, in tokens; its first seed alone."""
    faithfulness: bool = False
    """Tamper with its reasoning as well, where the recipe says how; its first seed alone."""


class AblateConfig(Config):
    """The arms of an ablation, side by side."""

    arms: list[ArmConfig] = Field(min_length=1)
    """In the order of the tables."""
    seeds: list[int] = Field([1], min_length=1)
    """Seeds that every trained arm is trained with."""
    sources: list[SourceConfig] = []
    """Prompts that only some arms are trained on."""
    suites: list[str] = []
    """Suites to ask, where they are others than `evaluate.suites`."""
    samples: int | None = Field(None, gt=0)
    """Answers to each case, where they are more than `evaluate.samples`."""
    faithfulness: FaithfulnessConfig | None = None
    """How the reasoning of arms that say so is tampered with."""
    converse: MultiturnConfig | None = None
    """How arms are attacked over several turns."""

    @model_validator(mode="after")
    def _check(self) -> "AblateConfig":
        names = [arm.name for arm in self.arms]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"two arms are named {twice!r}: give each its own name")
        known = [source.name for source in self.sources]
        for arm in self.arms:
            if len(set(arm.budgets)) < len(arm.budgets):
                raise ValueError(f"arm {arm.name!r} has a budget twice: {arm.budgets}")
            if arm.sources and not arm.train:
                raise ValueError(
                    f"arm {arm.name!r} has sources and trains nothing: give it train or leave them"
                )
            if unknown := next((name for name in arm.sources if name not in known), None):
                raise ValueError(
                    f"arm {arm.name!r} names source {unknown!r}; ablate.sources has "
                    f"{', '.join(known) or 'none'}"
                )
        return self


class DriftConfig(Config):
    """What counts as a judge that has drifted."""

    refreshes: int = Field(7, gt=0)
    """Refreshes before this one that it is compared with."""
    acceptance: float = Field(0.1, gt=0, le=1)
    """How far the share of accepted completions may be from their mean."""
    spread: float = Field(2.0, gt=0, le=10)
    """How far the mean distance between the scores of one completion may be from theirs."""
    min_rows: int = Field(50, gt=0)
    """Fewer completions judged anew than this say nothing."""


class NightlyConfig(Config):
    """The refresh that a schedule starts."""

    cron: str = "0 2 * * *"
    """When, as cron says it."""
    timezone: str = "UTC"
    """Whose clock that is, as in Europe/Berlin."""
    when_busy: Literal["queue", "cancel"] = "queue"
    """What becomes of a run that is started while another of the deployment is at work."""
    train_after: int | None = Field(None, gt=0)
    """Train when there are so many more examples than when the recipe was last trained; none:
    never."""
    hours: float = Field(12.0, gt=0)
    """A refresh or training of a nightly run is ended when it takes longer, and so is a run of any
    other deployment; that it waits for other runs counts."""
    hours_to_approve: float = Field(24.0, gt=0)
    """How long a held run waits for a person in the Prefect UI; later `precept approve` does it."""


class Recipe(Config):
    """A whole run: policies, prompts, models, and what is asked of them."""

    name: str
    """Names the run; the latest run of a name says which of its rows are current."""
    pack: str
    """Folder of the policy pack (relative to the working folder or to Precept's own)."""
    sources: list[SourceConfig]
    """Where prompts come from."""
    collect: CollectConfig = CollectConfig()
    """How prompts are cleaned."""
    engine: EngineConfig = EngineConfig()
    """The model that generates."""
    judge_engine: EngineConfig | None = None
    """The model that judges; none: the generator judges as well, in the same warm engine."""
    generate: GenerateConfig = GenerateConfig()
    """What the generator is asked for."""
    judge: JudgeConfig = JudgeConfig()
    """How completions are scored."""
    curate: CurateConfig = CurateConfig()
    """Which accepted completions become training rows."""
    sft: SftConfig | None = None
    """How the generator is fine-tuned on the examples; none: it is not."""
    dpo: DpoConfig | None = None
    """How it is then trained on preference pairs; none: it is not."""
    rl: RlConfig | None = None
    """How it is refined by reinforcement learning; none: it is not."""
    evaluate: EvaluateConfig | None = None
    """How models are evaluated; none: they are not."""
    calibrate: EvaluateConfig | None = None
    """How the judge is held against gold: what the generator answers, graded by both."""
    ablate: AblateConfig | None = None
    """What is left out or added to see what it does; none: nothing."""
    drift: DriftConfig | None = None
    """When what a refresh judged is held for approval; none: never."""
    nightly: NightlyConfig = NightlyConfig()
    """When the nightly deployment refreshes, and what follows."""
    stage: StageConfig = StageConfig()
    """How work is spread."""
    gpu_hour_price: float | None = Field(None, ge=0)
    """What a GPU costs an hour, in your currency; none: costs are told in GPU-hours alone."""

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        names = [source.name for source in self.sources]
        if not names:
            raise ValueError("sources is empty: add a [[sources]] section")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ValueError(f"two sources are named {twice!r}: give each its own name")
        for kind, config in (("generate", self.generate), ("judge", self.judge)):
            if config.samples > 1 and config.sampling.temperature == 0:
                raise ValueError(
                    f"{kind}.sampling.temperature is 0 with {config.samples} samples, which would "
                    "all be the same: raise the temperature or ask for 1 sample"
                )
        return self

    @property
    def judging_engine(self) -> EngineConfig:
        """The engine that judges."""
        return self.judge_engine or self.engine

    @property
    def pack_folder(self) -> Path:
        """The folder of the policy pack."""
        places = (base / self.pack for base in (Path.cwd(), PROJECT))
        return next((place for place in places if place.is_dir()), Path(self.pack))

    def load_pack(self) -> Pack:
        """The policy pack; raises PackError where it cannot be used."""
        return load_pack(self.pack_folder)


def recipe_path(name: str | Path) -> Path:
    """The file of a recipe given by path or by the name of a shipped one."""
    for path in (Path(name), RECIPES / f"{name}.toml"):
        if path.is_file():
            return path
    raise RecipeError(
        f"no recipe {str(name)!r}: give a TOML file or one of {', '.join(shipped_recipes())}"
    )


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with Precept."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(name: str | Path, *, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and checks a recipe; `overrides` are `judge.samples=8` and the like.

    Raises RecipeError in one sentence a fault: the file, the key, what is wrong with it.
    """
    path = recipe_path(name)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error
    data.setdefault("name", path.stem)
    for override in overrides:
        _override(data, override)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(_sentence(fault) for fault in error.errors())
        raise RecipeError(f"{path}: {faults}") from error


def _override(data: dict[str, Any], text: str) -> None:
    """Sets one dotted key; the value is TOML, or a string where it is not."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {text!r} is not key=value; write it as judge.samples=8")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    *parents, last = key.strip().split(".")
    place: Any = data
    for depth, parent in enumerate(parents):
        place = _section(place, parent, ".".join(parents[:depth]) or "the recipe")
    if isinstance(place, list):
        _section(place, last, ".".join(parents))
        place[int(last)] = parsed
    elif isinstance(place, dict):
        place[last] = parsed
    else:
        raise RecipeError(f"--set {text!r}: {'.'.join(parents)!r} is not a section")


def _section(place: Any, key: str, where: str) -> Any:
    """The part of a recipe under a key, made where a section has none."""
    if isinstance(place, list):
        if not key.isdigit() or int(key) >= len(place):
            raise RecipeError(
                f"--set: {where!r} has {len(place)} entries, counted from 0; not {key}"
            )
        return place[int(key)]
    if not isinstance(place, dict):
        raise RecipeError(f"--set: {where!r} is not a section")
    return place.setdefault(key, {})


def _sentence(fault: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _fields_at(Recipe, fault["loc"][:-1])
        close = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(known)}"
        return f"unknown key {where!r}: {hint}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if not where:
        return message
    given = f" (given: {fault['input']!r})" if fault["type"] != "missing" else ""
    return f"{where}: {message}{given}"


def _fields_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Names of the fields of the configuration at a place of the recipe."""
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[str(part)].annotation
        options = [annotation, *get_args(annotation)]
        model = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(model.model_fields)
