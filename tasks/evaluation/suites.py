"""cases ← suites: the prompts that models are evaluated on, each as it is asked.

A suite is a small TOML file: where its prompts lie, which column says what, and which attacks are
tried on them. A case is one prompt under one attack; it has the same id in every version of its
suite, so that adding prompts or attacks asks only what is new.
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
from tasks.data.sources import Candidate, SourceConfig, messages_id, read_chat, read_source
from tasks.paths import PROJECT
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import CASES, Case, Turn, content_id

_ROWS_A_SHARD = 20_000


class SuiteError(ValueError):
    """A suite that cannot be used."""


class SuiteConfig(Config):
    """Prompts that models are evaluated on, and how they are asked."""

    name: str = Field(min_length=1)
    """Names the suite in rows and tables."""
    source: SourceConfig
    """Where the prompts lie; its name is the suite's."""
    target: str | None = None
    """Column with the gold answer."""
    label: str | None = None
    """Column with the suite's own class of a prompt."""
    answer: str | None = None
    """Column with an answer that was given already: what a judge is held against gold on."""
    gold: str | None = None
    """Column with what people say of that answer: whether it is right, or which propositions hold
    of it; graders named `gold` read it."""
    attack: str | None = None
    """Column with the name of the attack that the row's prompt is under already."""
    original: str | None = None
    """Column with the prompt before that attack."""
    attacks: list[str] = ["none"]
    """Attacks to try on each prompt; `none` asks it bare."""
    seeds: list[int] = [0]
    """Seeds of attacks that draw; several of `best_of_n` are its several tries."""
    sanitised: bool = True
    """Break special tokens in what is asked; false asks as an interface would that does not."""

    @model_validator(mode="before")
    @classmethod
    def _name_source(cls, data: Any) -> Any:
        """Names the source as its suite."""
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


def load_suite(name: str, folder: Path) -> SuiteConfig:
    """The suite of a TOML file, or the one of that name in `folder`; SuiteError where none is."""
    places = (Path(name), PROJECT / name, folder / f"{name}.toml")
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        known = ", ".join(sorted(file.stem for file in folder.glob("*.toml")))
        raise SuiteError(f"no suite {name!r}: give a TOML file or one of {known}")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return SuiteConfig.model_validate({"name": path.stem, **data})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SuiteError(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        message = str(fault["msg"]).removeprefix("Value error, ")
        raise SuiteError(f"{path}: {where}{': ' if where else ''}{message}") from error


@dataclass(frozen=True, slots=True)
class Suite:
    """The cases of a suite, at a version."""

    name: str
    version: str
    cases: tuple[Case, ...]
    recorded: Mapping[str, str]
    """By case, the answer that was given already, where the suite has one."""
    num_faulty: int = 0
    """Rows of the source that could not be used."""


def build_suite(config: SuiteConfig, *, marks: Marks | None = None, limit: int | None) -> Suite:
    """Every prompt of a suite under every attack, in order; at most `limit` prompts.

    `marks` are those of the model asked, for attacks that forge them. Raises SuiteError where such
    an attack has none, or where a row lacks the prompt before its attack.
    """
    prompts: list[Candidate] = []
    num_faulty = 0
    for one in read_source(config.source):
        if one.fault:
            num_faulty += 1
        elif limit is None or len(prompts) < limit:
            prompts.append(one)
    cases: dict[str, Case] = {}
    recorded: dict[str, str] = {}
    for one in prompts:
        for case in _cases(config, one, marks):
            cases[case.case_id] = case
            if config.answer and (chat := read_chat(one.kept[config.answer])):
                recorded[case.case_id] = chat[-1]["content"]
    if not cases:
        raise SuiteError(
            f"suite {config.name!r} has no prompt that can be asked: {num_faulty} rows cannot be "
            "used; check which columns it names"
        )
    version = content_id(config.name, *(_said(case) for case in cases.values()))
    at_version = tuple(replace(case, suite_version=version) for case in cases.values())
    return Suite(config.name, version, at_version, recorded, num_faulty)


def _cases(config: SuiteConfig, prompt: Candidate, marks: Marks | None) -> Iterator[Case]:
    if config.attack and config.original:
        original = read_chat(prompt.kept[config.original])
        if not original:
            raise SuiteError(
                f"suite {config.name!r}: a row has no prompt in column {config.original!r}; give "
                "every row the prompt before its attack"
            )
        name = str(prompt.kept[config.attack] or "none")
        yield _case(config, prompt, original, prompt.messages, name, "file", 0)
        return
    for attack in find_attacks(config.attacks):
        if attack.needs_marks and marks is None:
            raise SuiteError(
                f"suite {config.name!r}: attack {attack.name} forges the marks of a chat template, "
                "and this model's are not known; leave the attack out"
            )
        seen: set[str] = set()
        for seed in config.seeds:
            asked = attack.render(prompt.messages, seed=seed, marks=marks)
            # Most attacks draw nothing: another seed of theirs is no other case.
            if (rendered := messages_id(asked)) not in seen:
                seen.add(rendered)
                yield _case(
                    config, prompt, prompt.messages, asked, attack.name, attack.version, seed
                )


def _case(
    config: SuiteConfig,
    prompt: Candidate,
    original: Sequence[Message],
    asked: Sequence[Message],
    attack: str,
    version: str,
    seed: int,
) -> Case:
    prompt_id = messages_id(original)
    label = prompt.kept.get(config.label or "")
    target = prompt.kept.get(config.target or "")
    if config.gold:
        target = json.dumps(prompt.kept[config.gold], sort_keys=True)
    given = [str(prompt.kept[config.answer])] if config.answer else []
    told = (prompt_id, prompt.categories, prompt.ideal_response, target)
    return Case(
        suite_version="",
        case_id=content_id(
            prompt_id, messages_id(asked), attack, version, seed, config.sanitised, *given
        ),
        suite=config.name,
        prompt_id=prompt_id,
        attack=attack,
        attack_version=version,
        seed=seed,
        sanitised=config.sanitised,
        categories=list(prompt.categories),
        ideal_response=prompt.ideal_response,
        language=prompt.language,
        transform=prompt.transform,
        label=None if label is None else str(label),
        target=None if target is None else str(target),
        grading_context_id=content_id(json.dumps(told)),
        created_at=datetime.now(UTC),
        messages=[Turn(**turn) for turn in asked],
        original=[Turn(**turn) for turn in original],
    )


def _said(case: Case) -> str:
    """All that is said of a case, as text."""
    said = (case.categories, case.ideal_response, case.language, case.transform)
    return json.dumps([case.case_id, *said, case.label, case.target])


def store(connection: duckdb.DuckDBPyConnection, suite: Suite, home: Home) -> None:
    """Commits the cases of a suite that are not there."""
    known = {
        row[0]
        for row in connection.execute(
            "SELECT case_id FROM cases WHERE suite_version = ?", [suite.version]
        ).fetchall()
    }
    rows = [case for case in suite.cases if case.case_id not in known]
    for start in range(0, len(rows), _ROWS_A_SHARD):
        write_shard(home, CASES, rows[start : start + _ROWS_A_SHARD])
