"""cases ← suites: the prompts that models are evaluated on, as they are asked.

A suite is a small TOML file: where its prompts lie, the meaning of its columns, and the attacks
that are tried on each prompt. A case is one prompt under one attack. It has the same id in every
version of its suite, so that more prompts or attacks ask only the difference.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from pydantic import Field, ValidationError, model_validator

from specs.attacks import AttackError, Marks, find_attacks
from specs.prompts import Message
from tasks import Config
from tasks.data.candidates import Candidate, messages_id, read_chat, read_source
from tasks.data.sources import SourceConfig
from tasks.paths import find, places
from warehouse.catalog import look_up
from warehouse.home import Home
from warehouse.shards import write_all
from warehouse.tables import CASES, Case, Turn, content_id


class SuiteError(ValueError):
    """A suite that cannot be used."""


class SuiteConfig(Config):
    """Prompts that models are evaluated on, and the attacks that are tried on them."""

    name: str = Field(min_length=1)
    """Name in rows and tables."""
    source: SourceConfig
    """Source of the prompts; its name is the suite's."""
    target: str | None = None
    """Column with the gold answer."""
    label: str | None = None
    """Column with the suite's own class of a prompt."""
    answer: str | None = None
    """Column with an answer that was given already, which graders grade as people did."""
    gold: str | None = None
    """Column with what people said of that answer: whether it is right, or which propositions hold
    of it; the grader function `gold` reads it."""
    attack: str | None = None
    """Column with the name of the attack that the row's prompt is under already."""
    original: str | None = None
    """Column with the prompt before that attack."""
    attacks: list[str] = ["none"]
    """Attacks to try on each prompt; `none` asks it bare."""
    seeds: list[int] = [0]
    """Seeds of the attacks that draw at random; each is a try of its own."""
    sanitised: bool = True
    """Break special tokens in what is asked, as every interface should; false leaves them whole."""

    @model_validator(mode="before")
    @classmethod
    def _name_source(cls, data: Any) -> Any:
        """Names the source as its suite, and keeps the columns that the suite reads."""
        if isinstance(data, dict) and isinstance(data.get("source"), dict):
            source = {"name": data.get("name", ""), **data["source"]}
            columns = ("target", "label", "answer", "gold", "attack", "original")
            kept = [data.get(key) for key in columns]
            source["keep"] = [name for name in kept if name]
            return {**data, "source": source}
        return data

    @model_validator(mode="after")
    def _check(self) -> "SuiteConfig":
        try:
            find_attacks(self.attacks)
        except AttackError as error:
            raise ValueError(f"suite {self.name!r}: {error}") from error
        if (self.attack is None) != (self.original is None):
            raise ValueError(
                f"suite {self.name!r} has one of attack and original: give both columns or neither"
            )
        if self.gold and (self.target or not self.answer):
            raise ValueError(
                f"suite {self.name!r} has gold: it needs a column answer, and can have no target"
            )
        if self.answer and self.attacks != ["none"]:
            raise ValueError(
                f"suite {self.name!r} has answers that were given already: leave its attacks out"
            )
        if self.attack and self.attacks != ["none"]:
            raise ValueError(
                f"suite {self.name!r} has attacks in a column and in a list: leave one out"
            )
        return self


def load_suite(name: str, shipped: Path) -> SuiteConfig:
    """Returns the suite of a TOML file, or the one of that name in the folder `shipped`.

    Its source is looked up beside the file first. Raises SuiteError if there is no such suite, or
    if its file cannot be used.
    """
    path = find(name, accept=Path.is_file)
    if path is None:
        path = shipped / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in shipped.glob("*.toml")))
        raise SuiteError(f"no suite {name!r} ({places()}): give a TOML file or one of {known}")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return SuiteConfig.model_validate(
            {"name": path.stem, **data}, context={"folder": str(path.parent.absolute())}
        )
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        message = str(fault["msg"]).removeprefix("Value error, ")
        raise SuiteError(f"{path}: {where}{': ' if where else ''}{message}") from error


def load_suites(names: Sequence[str], shipped: Path) -> list[SuiteConfig]:
    """Returns the suites of these names, as `load_suite` does."""
    return [load_suite(name, shipped) for name in names]


@dataclass(frozen=True, slots=True)
class Suite:
    """The cases of a suite, at a version."""

    name: str
    version: str
    """Hash of all its cases."""
    cases: tuple[Case, ...]
    recorded: Mapping[str, str]
    """By case id, the answer that was given already. Empty: the suite has none."""
    num_faulty: int = 0
    """Rows of the source that could not be used."""


def build_suite(config: SuiteConfig, *, marks: Marks | None = None, limit: int | None) -> Suite:
    """Returns every prompt of a suite under every attack, in order; at most `limit` prompts.

    `marks` are those of the model that is asked, for attacks that forge them. Raises SuiteError if
    such an attack gets none, if a row lacks the prompt before its attack, or if no row can be used.
    """
    prompts: list[Candidate] = []
    num_faulty = 0
    for row in read_source(config.source):
        if row.fault:
            num_faulty += 1
        elif limit is None or len(prompts) < limit:
            prompts.append(row)
    cases: dict[str, Case] = {}
    recorded: dict[str, str] = {}
    # Rows that repeat a prompt make one case.
    for prompt in prompts:
        for case in _cases(config, prompt, marks):
            cases[case.case_id] = case
            if config.answer and (chat := read_chat(prompt.kept[config.answer])):
                recorded[case.case_id] = chat[-1]["content"]
    if not cases:
        raise SuiteError(
            f"suite {config.name!r} has no prompt that can be asked: {num_faulty} rows cannot be "
            "used; check which columns it names"
        )
    version = content_id(config.name, *(_text_of(case) for case in cases.values()))
    at_version = tuple(replace(case, suite_version=version) for case in cases.values())
    return Suite(config.name, version, at_version, recorded, num_faulty)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rendering:
    """A prompt as it is asked."""

    original: Sequence[Message]
    messages: Sequence[Message]
    attack: str
    attack_version: str
    seed: int


def _cases(config: SuiteConfig, prompt: Candidate, marks: Marks | None) -> Iterator[Case]:
    """Yields a prompt under every attack of the suite, or under the one that its row names."""
    if config.attack and config.original:
        yield _case(config, prompt, _rendering_in_file(config, prompt))
        return
    for attack in find_attacks(config.attacks):
        if attack.needs_marks and marks is None:
            raise SuiteError(
                f"suite {config.name!r}: attack {attack.name} forges the marks of a chat template, "
                "and this model's are not known; leave the attack out"
            )
        rendered: set[str] = set()
        for seed in config.seeds:
            messages = attack.render(prompt.messages, seed=seed, marks=marks)
            # Most attacks draw nothing: another seed of theirs gives the same case.
            if (name := messages_id(messages)) not in rendered:
                rendered.add(name)
                rendering = _Rendering(
                    original=prompt.messages,
                    messages=messages,
                    attack=attack.name,
                    attack_version=attack.version,
                    seed=seed,
                )
                yield _case(config, prompt, rendering)


def _rendering_in_file(config: SuiteConfig, prompt: Candidate) -> _Rendering:
    """Returns a prompt that is under an attack in the source itself."""
    original = read_chat(prompt.kept[config.original or ""])
    if not original:
        raise SuiteError(
            f"suite {config.name!r}: a row has no prompt in column {config.original!r}; give "
            "every row the prompt before its attack"
        )
    return _Rendering(
        original=original,
        messages=prompt.messages,
        attack=str(prompt.kept[config.attack or ""] or "none"),
        attack_version="file",
        seed=0,
    )


def _case(config: SuiteConfig, prompt: Candidate, rendering: _Rendering) -> Case:
    prompt_id = messages_id(rendering.original)
    label = prompt.kept.get(config.label or "")
    target = prompt.kept.get(config.target or "")
    if config.gold:
        target = json.dumps(prompt.kept[config.gold], sort_keys=True)
    given = [str(prompt.kept[config.answer])] if config.answer else []
    context = (prompt_id, prompt.categories, prompt.ideal_response, target)
    return Case(
        suite_version="",
        case_id=content_id(
            prompt_id,
            messages_id(rendering.messages),
            rendering.attack,
            rendering.attack_version,
            rendering.seed,
            config.sanitised,
            *given,
        ),
        suite=config.name,
        prompt_id=prompt_id,
        attack=rendering.attack,
        attack_version=rendering.attack_version,
        seed=rendering.seed,
        sanitised=config.sanitised,
        categories=list(prompt.categories),
        ideal_response=prompt.ideal_response,
        language=prompt.language,
        transform=prompt.transform,
        label=None if label is None else str(label),
        target=None if target is None else str(target),
        grading_context_id=content_id(json.dumps(context)),
        created_at=datetime.now(UTC),
        messages=[Turn(**turn) for turn in rendering.messages],
        original=[Turn(**turn) for turn in rendering.original],
    )


def _text_of(case: Case) -> str:
    """Returns the part of a case that the suite's version hashes."""
    values = (case.categories, case.ideal_response, case.language, case.transform)
    return json.dumps([case.case_id, *values, case.label, case.target])


def store(connection: duckdb.DuckDBPyConnection, suite: Suite, home: Home) -> None:
    """Stores the cases of a suite that the warehouse lacks."""
    stored = {
        row["case_id"] for row in look_up(connection, "case_ids", suite_version=suite.version)
    }
    write_all(home, CASES, (case for case in suite.cases if case.case_id not in stored))
