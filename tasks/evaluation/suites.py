"""cases ← suites: the prompts that models are evaluated on, as they are asked.

A suite is a small TOML file: where its prompts lie, the meaning of its columns, and the attacks
that are tried on each prompt. A case is one prompt under one attack. It has the same id in every
version of its suite, so that more prompts or attacks ask only the difference.
"""

import json
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from pydantic import Field, ValidationError, model_validator

from specs.adherence import StyleCriteria
from specs.attacks import AttackError, Marks, find_attacks
from specs.policy import Outcome
from specs.prompts import Message
from tasks import Config
from tasks.data.candidates import Candidate, messages_id, read_chat, read_source
from tasks.data.categories import MAP_LABELS, require_pack_categories, unknown_labels
from tasks.data.sources import SourceConfig
from tasks.evaluation.rows import SuiteFigures, SuiteRow, SuiteRows
from tasks.paths import find, places
from warehouse.catalog import look_up
from warehouse.home import Home
from warehouse.shards import write_all
from warehouse.tables import CASES, Case, Turn, content_id


class SuiteError(ValueError):
    """A suite that cannot be used."""


class RightConfig(Config):
    """The propositions that tell whether an answer is right."""

    all: list[str] = []
    """Those that must all hold."""
    none: list[str] = []
    """Those of which none may hold."""

    @property
    def criteria(self) -> StyleCriteria:
        """The same as criteria of style, which are read of an answer in the same way."""
        return StyleCriteria(tuple(self.all), tuple(self.none))


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
    right: dict[Outcome, RightConfig] = {}
    """By ideal response, the propositions in `gold` by which an answer is right. Unset: people said
    it themselves, or nobody did."""
    attack: str | None = None
    """Column with the name of the attack that the row's prompt is under already."""
    original: str | None = None
    """Column with the prompt before that attack: a chat, or the text of the user's turn, which is
    then shown after the row's own system messages."""
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
        if self.right and not self.gold:
            raise ValueError(f"suite {self.name!r} has right: it needs a column gold")
        if self.answer and self.attacks != ["none"]:
            raise ValueError(
                f"suite {self.name!r} has answers that were given already: leave its attacks out"
            )
        if self.attack and self.attacks != ["none"]:
            raise ValueError(
                f"suite {self.name!r} has attacks in a column and in a list: leave one out"
            )
        if self.source.assign_category:
            raise ValueError(
                f"suite {self.name!r} has assign_category, and no judge assigns the prompts of a "
                "suite: map their labels in category_map"
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
    figures: SuiteFigures
    """The rows of the source, by what became of them."""

    @property
    def num_faulty(self) -> int:
        """Rows of the source that could not be used."""
        return self.figures.num_faulty


def require_pack_suite(config: SuiteConfig, pack_categories: Sequence[str]) -> None:
    """Raises SuiteError if the suite itself names a category that the pack lacks."""
    try:
        require_pack_categories(config.source, pack_categories)
    except ValueError as error:
        raise SuiteError(f"suite {config.name!r}: {error}") from error


def build_suite(
    config: SuiteConfig,
    *,
    marks: Marks | None = None,
    limit: int | None,
    pack_categories: Sequence[str] | None = None,
) -> Suite:
    """Returns every prompt of a suite under every attack, in order; at most `limit` prompts.

    `marks` are those of the model that is asked, for attacks that forge them. Raises SuiteError if
    such an attack gets none, if a row lacks the prompt before its attack, if the suite or a row
    names a category that is not one of `pack_categories`, or if no row can be used.
    """
    rows = _read_rows(config, limit, pack_categories)
    cases: dict[str, Case] = {}
    recorded: dict[str, str] = {}
    for row in rows.asked:
        for case in _cases(config, row, marks):
            cases[case.case_id] = case
            if config.answer and (answer := _answer(config, row.prompt)) is not None:
                recorded[case.case_id] = answer
    figures = rows.figures(len(cases))
    if not cases:
        raise SuiteError(_no_cases(config, figures))
    version = content_id(config.name, *(_text_of(case) for case in cases.values()))
    at_version = tuple(replace(case, suite_version=version) for case in cases.values())
    return Suite(config.name, version, at_version, recorded, figures)


def _no_cases(config: SuiteConfig, figures: SuiteFigures) -> str:
    counts = [f"{reason} {count}" for reason, count in figures.faulty.items()]
    if figures.conflicts:
        counts.append(f"conflicting {figures.num_conflicting}, as {figures.conflicts[0]}")
    return (
        f"suite {config.name!r} has no prompt that can be asked: of its {figures.num_rows} rows "
        f"{figures.num_rows - figures.num_over_limit} cannot be used ({'; '.join(counts)}); check "
        "which columns it names"
    )


def _read_rows(
    config: SuiteConfig, limit: int | None, pack_categories: Sequence[str] | None
) -> SuiteRows:
    """Returns the rows of a suite's source; raises SuiteError if they have labels that are not
    categories of the pack."""
    if pack_categories is not None:
        require_pack_suite(config, pack_categories)
    rows = SuiteRows(limit)
    unknown: Counter[str] = Counter()
    for prompt in read_source(config.source):
        if pack_categories is not None:
            unknown.update(name for name in prompt.categories if name not in pack_categories)
        if fault := _fault(config, prompt):
            rows.faulty[fault] += 1
        else:
            rows.note(_row(config, prompt))
    if unknown and pack_categories is not None:
        sentence = unknown_labels(config.source, unknown, pack_categories, remedy=MAP_LABELS)
        raise SuiteError(f"suite {config.name!r}: {sentence}")
    for prompt in read_source(config.source):
        if not _fault(config, prompt):
            rows.add(_row(config, prompt))
    return rows


def _fault(config: SuiteConfig, prompt: Candidate) -> str | None:
    """Returns why a row cannot be asked, or why the answer that it should have cannot be graded."""
    if prompt.fault or not config.answer:
        return prompt.fault
    chat = _kept_chat(prompt.kept[config.answer])
    if chat is None:
        return "no_answer"
    return "answer_of_several_turns" if len(chat) > 1 else None


def _row(config: SuiteConfig, prompt: Candidate) -> SuiteRow:
    """Returns a row with its claims, by which rows that disagree are found."""
    original = _original(config, prompt)
    original_id = messages_id(original)
    of_original = {"category": prompt.categories, "ideal_response": prompt.ideal_response}
    target = _target(config, prompt)
    return SuiteRow(
        prompt=prompt,
        original=original,
        asked_id=content_id(
            messages_id(prompt.messages), _attack_in_file(config, prompt), *_given(config, prompt)
        ),
        original_id=original_id,
        says={
            **of_original,
            "language": prompt.language,
            "transform": prompt.transform,
            "label": _label(config, prompt),
            "target": None if target is None else str(target),
            "original": original_id,
        },
        of_original=of_original,
    )


def _attack_in_file(config: SuiteConfig, prompt: Candidate) -> str:
    """Returns the name of the attack that a row's prompt is under already."""
    return str(prompt.kept.get(config.attack or "") or "none")


def _original(config: SuiteConfig, prompt: Candidate) -> list[Message]:
    """Returns the chat before the attack that the row itself names; else the row's own.

    One turn alone leaves the system messages of the row in place: they are the setting in which it
    is asked. Other turns before it may be the attack's own, and are left out.
    """
    if not config.original:
        return prompt.messages
    original = _kept_chat(prompt.kept[config.original])
    if not original:
        raise SuiteError(
            f"suite {config.name!r}: {prompt.place} has no prompt in column {config.original!r}; "
            "give every row the prompt before its attack"
        )
    if len(original) > 1:
        return original
    return [*(turn for turn in prompt.messages if turn["role"] == "system"), *original]


def _given(config: SuiteConfig, prompt: Candidate) -> list[str]:
    """Returns the answer that a row has already as its ids hash it; an empty list without one."""
    return [str(prompt.kept[config.answer])] if config.answer else []


def _answer(config: SuiteConfig, prompt: Candidate) -> str | None:
    """Returns the answer that a row has already."""
    chat = _kept_chat(prompt.kept[config.answer or ""])
    return chat[-1]["content"] if chat else None


def _kept_chat(value: object) -> list[Message] | None:
    """Returns the chat in a kept column, also as JSON text; a user's text; or None for others."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            return read_chat(json.loads(value)) or read_chat(value)
    return read_chat(value)


def _label(config: SuiteConfig, prompt: Candidate) -> str | None:
    label = prompt.kept.get(config.label or "")
    return None if label is None else str(label)


def _target(config: SuiteConfig, prompt: Candidate) -> object:
    """Returns the gold answer, or what people said of the answer that was given, as JSON."""
    if config.gold:
        said = prompt.kept[config.gold]
        return json.dumps(_with_right(config, prompt, said), sort_keys=True)
    return prompt.kept.get(config.target or "")


def _with_right(config: SuiteConfig, prompt: Candidate, said: object) -> object:
    """Returns what people said of an answer and, if the suite tells it, whether it is right."""
    right = config.right.get(Outcome(prompt.ideal_response)) if prompt.ideal_response else None
    if right is None or not isinstance(said, Mapping):
        return said
    try:
        return {**said, "right": right.criteria.are_met(said)}
    except KeyError as error:
        raise SuiteError(
            f"suite {config.name!r}: {prompt.place} says nothing of {error.args[0]!r}; give every "
            "row all propositions of right, or leave it out there"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rendering:
    """A prompt as it is asked."""

    messages: Sequence[Message]
    attack: str
    attack_version: str
    seed: int = 0


def _cases(config: SuiteConfig, row: SuiteRow, marks: Marks | None) -> Iterator[Case]:
    """Yields a prompt under every attack of the suite, or under the one that its row names."""
    messages = row.prompt.messages
    if config.attack:
        name = _attack_in_file(config, row.prompt)
        yield _case(config, row, _Rendering(messages=messages, attack=name, attack_version="file"))
        return
    for attack in find_attacks(config.attacks):
        if attack.needs_marks and marks is None:
            raise SuiteError(
                f"suite {config.name!r}: attack {attack.name} forges the marks of a chat template, "
                "and this model's are not known; leave the attack out"
            )
        rendered: set[str] = set()
        for seed in config.seeds:
            asked = attack.render(messages, seed=seed, marks=marks)
            # Most attacks draw nothing: another seed of theirs gives the same case.
            if (name := messages_id(asked)) not in rendered:
                rendered.add(name)
                rendering = _Rendering(
                    messages=asked, attack=attack.name, attack_version=attack.version, seed=seed
                )
                yield _case(config, row, rendering)


def _case(config: SuiteConfig, row: SuiteRow, rendering: _Rendering) -> Case:
    prompt, prompt_id = row.prompt, row.original_id
    target = _target(config, prompt)
    # The target as the file has it: the id keeps what kind of value it is.
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
            *_given(config, prompt),
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
        label=_label(config, prompt),
        target=None if target is None else str(target),
        grading_context_id=content_id(json.dumps(context)),
        created_at=datetime.now(UTC),
        messages=[Turn(**turn) for turn in rendering.messages],
        original=[Turn(**turn) for turn in row.original],
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
