"""adherence.toml → the propositions that tell whether an answer keeps to a pack's style.

The file stands in the pack's folder. It lists sentences that are true or false of an answer, and
for each outcome those that must hold and those that must not; table `guide` does so for categories
of guide rules alone. It is for graders alone: no spec contains a word of it.

    adherence = load_adherence("specs/harbour")
    adherence.propositions_for("refuse", ["boats"])      # {"gives_help": "The answer …", …}
    adherence.adheres("refuse", ["boats"], {"gives_help": False, "says_sorry": True, …})
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, NoReturn

from specs.pack import load_pack
from specs.policy import GUIDE, Outcome, Pack, PackError

ADHERENCE_FILE = "adherence.toml"
"""The file of a pack that turns its style into propositions."""


class AdherenceError(PackError):
    """A pack's adherence.toml that cannot be used; the message names the file."""


@dataclass(frozen=True, slots=True)
class StyleCriteria:
    """The ids of propositions that hold of every answer in a style, and of none."""

    all: tuple[str, ...]
    none: tuple[str, ...]

    def are_met(self, holds: Mapping[str, Any]) -> bool:
        """Returns whether an answer meets them, given which propositions hold of it.

        Raises KeyError if a proposition is missing from `holds` and the others do not settle it.
        """
        return all(holds[name] for name in self.all) and not any(holds[name] for name in self.none)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adherence:
    """A pack's style, as propositions that are true or false of an answer."""

    propositions: Mapping[str, str]
    """Sentences by id."""
    styles: Mapping[str, StyleCriteria]
    """Criteria of each outcome, and of `guide`."""
    overrides: Mapping[str, Mapping[str, StyleCriteria]]
    """By outcome, the criteria of categories that have their own."""
    version: str
    """Hash of the three above: comments and line breaks of the file do not count."""
    guided: frozenset[str] = frozenset()
    """Categories whose rules are all guide rules, so that their prompts have no ideal response."""

    def style_of(self, ideal_response: str | None, categories: Sequence[str]) -> str | None:
        """Returns the style that an answer is held to: the ideal response, or `guide` if there is
        none and guide rules alone apply; None if it is not known or the file has no table for it.
        """
        is_guided = bool(categories) and self.guided.issuperset(categories)
        style = GUIDE if ideal_response is None and is_guided else ideal_response
        return style if style in self.styles else None

    def propositions_for(
        self, ideal_response: str | None, categories: Sequence[str]
    ) -> dict[str, str]:
        """Returns the propositions that settle adherence, by id; all if no style is known."""
        style = self.style_of(ideal_response, categories)
        if style is None:
            return dict(self.propositions)
        criteria = self._criteria(style, categories)
        ids = {*criteria.all, *criteria.none}
        return {name: text for name, text in self.propositions.items() if name in ids}

    def adheres(
        self, ideal_response: str | None, categories: Sequence[str], holds: Mapping[str, bool]
    ) -> bool | None:
        """Returns whether an answer keeps to the style, given which propositions hold of it; None
        if no style is known.

        Raises KeyError if a proposition is missing from `holds` and the others do not settle it.
        """
        style = self.style_of(ideal_response, categories)
        return None if style is None else self._criteria(style, categories).are_met(holds)

    def _criteria(self, style: str, categories: Sequence[str]) -> StyleCriteria:
        """Returns the file's first override for one of the categories, or else the criteria of the
        style."""
        for category, criteria in self.overrides.get(style, {}).items():
            if category in categories:
                return criteria
        return self.styles[style]


def load_adherence(folder: str | Path) -> Adherence:
    """Returns the propositions of a pack. Raises AdherenceError if their file has a fault."""
    path = Path(folder) / ADHERENCE_FILE
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise AdherenceError(
            f"{path}: no such file; write one with [propositions] and what holds in each style"
        ) from None
    except UnicodeDecodeError as error:
        raise AdherenceError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise AdherenceError(
            f"{path}: not TOML ({error}); write tables of 'id = \"sentence\"' and lists of ids"
        ) from error
    return _AdherenceFile(path, data).parse()


_ID = re.compile(r"[a-z][a-z0-9_]*")
_STYLES = [*(outcome.value for outcome in Outcome), GUIDE]


@dataclass(frozen=True, slots=True)
class _AdherenceFile:
    """The tables of an adherence.toml, yet to be checked."""

    path: Path
    data: Mapping[str, Any]

    def parse(self) -> Adherence:
        pack = load_pack(self.path.parent)
        self._check_tables(pack)
        propositions = self._propositions()
        categories = list(pack.policies)
        styles: dict[str, StyleCriteria] = {}
        overrides: dict[str, dict[str, StyleCriteria]] = {}
        for outcome in (name for name in _STYLES if name in self.data):
            table = self.data[outcome]
            own = {name: value for name, value in table.items() if isinstance(value, dict)}
            shared = {name: value for name, value in table.items() if name not in own}
            styles[outcome] = self._criteria(outcome, shared, propositions)
            for category in own:
                if category not in categories:
                    self._fail(
                        f"[{outcome}.{category}] names no category of the pack",
                        f"use one of {', '.join(categories)}",
                    )
            overrides[outcome] = {
                category: self._criteria(f"{outcome}.{category}", value, propositions)
                for category, value in own.items()
            }
        content = json.dumps([propositions, styles, overrides], default=astuple)
        return Adherence(
            propositions=propositions,
            styles=styles,
            overrides=overrides,
            version=hashlib.sha256(content.encode()).hexdigest()[:32],
            guided=frozenset(name for name, policy in pack.policies.items() if policy.is_guide),
        )

    def _check_tables(self, pack: Pack) -> None:
        """Raises if a table is missing for a style of the pack's style.md, or none is known."""
        required = ["propositions", *(name for name in _STYLES[:-1] if name in pack.style)]
        for name in required:
            if not isinstance(self.data.get(name), dict):
                self._fail(f"no table [{name}]", f"write the tables {', '.join(required)}")
        tables = ["propositions", *_STYLES]
        for name, table in self.data.items():
            if name not in tables or not isinstance(table, dict):
                self._fail(f"unknown table or key {name!r}", f"use {', '.join(tables)}")

    def _propositions(self) -> dict[str, str]:
        propositions = {}
        for name, text in self.data["propositions"].items():
            if not _ID.fullmatch(name):
                self._fail(
                    f"unusable proposition id {name!r}",
                    "use small letters, digits and _, and begin with a letter",
                )
            if not isinstance(text, str) or not text.strip():
                self._fail(f"proposition {name!r} has no sentence", "write what it says, in quotes")
            propositions[name] = " ".join(text.split())
        return propositions

    def _criteria(
        self, table_name: str, table: Mapping[str, Any], propositions: Mapping[str, str]
    ) -> StyleCriteria:
        lists: dict[str, tuple[str, ...]] = {"all": (), "none": ()}
        for key, ids in table.items():
            if key not in lists:
                self._fail(f"unknown key {key!r} in [{table_name}]", "use all and none")
            if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
                self._fail(
                    f"{key} of [{table_name}] must be a list of ids", 'write it as ["apology", …]'
                )
            for name in ids:
                if name not in propositions:
                    self._fail(
                        f"[{table_name}] lists {name!r}, which is not a proposition",
                        "define it in [propositions] or drop it",
                    )
            lists[key] = tuple(ids)
        listed = [*lists["all"], *lists["none"]]
        if not listed:
            self._fail(f"[{table_name}] lists no proposition", "give it all, none or both")
        repeated = next((name for name in listed if listed.count(name) > 1), None)
        if repeated:
            self._fail(f"[{table_name}] lists {repeated!r} twice", "list each proposition once")
        return StyleCriteria(**lists)

    def _fail(self, fault: str, remedy: str) -> NoReturn:
        raise AdherenceError(f"{self.path}: {fault}; {remedy}")
