"""adherence.toml → the propositions that tell whether an answer keeps to a pack's style."""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, NoReturn

from specs.pack import load_pack
from specs.policy import Outcome, PackError

ADHERENCE_FILE = "adherence.toml"
"""The file of a pack that says which propositions hold of an answer in its style."""


@dataclass(frozen=True, slots=True)
class Style:
    """What holds of every answer in a style, and what of none."""

    all: tuple[str, ...]
    none: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adherence:
    """A pack's style, as propositions that are true or false of an answer."""

    propositions: Mapping[str, str]
    styles: Mapping[str, Style]
    """The style for each ideal response."""
    overrides: Mapping[str, Mapping[str, Style]]
    """For an ideal response, the styles of categories that have their own."""
    version: str
    """Hash of all that counts: comments and line breaks may change."""

    def propositions_for(
        self, ideal_response: str | None, categories: Sequence[str]
    ) -> dict[str, str]:
        """The propositions to ask about, by id; all where the ideal response is not known."""
        if ideal_response is None:
            return dict(self.propositions)
        style = self._style(ideal_response, categories)
        asked = {*style.all, *style.none}
        return {name: text for name, text in self.propositions.items() if name in asked}

    def adheres(
        self, ideal_response: str, categories: Sequence[str], answers: Mapping[str, bool]
    ) -> bool:
        """Whether an answer keeps to the style, by what is true of it.

        A proposition without an answer is a KeyError, unless another has settled it.
        """
        style = self._style(ideal_response, categories)
        return all(answers[name] for name in style.all) and not any(
            answers[name] for name in style.none
        )

    def _style(self, ideal_response: str, categories: Sequence[str]) -> Style:
        """The first override, in the file's order, of one of the categories, else the style of
        the ideal response."""
        own = self.overrides.get(ideal_response, {})
        found = next((style for category, style in own.items() if category in categories), None)
        return found or self.styles[ideal_response]


class AdherenceError(PackError):
    """A pack's adherence.toml that cannot be used; the message names the file."""


_ID = re.compile(r"[a-z][a-z0-9_]*")


def load_adherence(folder: str | Path) -> Adherence:
    """Reads and checks the propositions of a pack's folder; raises AdherenceError."""
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
    return _Reader(path, data).read()


@dataclass(frozen=True, slots=True)
class _Reader:
    path: Path
    data: Mapping[str, Any]

    def read(self) -> Adherence:
        outcomes = [outcome.value for outcome in Outcome]
        known = ["propositions", *outcomes]
        for name in known:
            if not isinstance(self.data.get(name), dict):
                self._fail(f"no table [{name}]", f"write the tables {', '.join(known)}")
        for name in self.data:
            if name not in known:
                self._fail(f"unknown table or key {name!r}", f"use {', '.join(known)}")
        propositions = self._propositions()
        categories = load_pack(self.path.parent).policies
        styles: dict[str, Style] = {}
        overrides: dict[str, dict[str, Style]] = {}
        for outcome in outcomes:
            table = self.data[outcome]
            own = {name: value for name, value in table.items() if isinstance(value, dict)}
            shared = {name: value for name, value in table.items() if name not in own}
            styles[outcome] = self._style(outcome, shared, propositions)
            for category in own:
                if category not in categories:
                    self._fail(
                        f"[{outcome}.{category}] is of no category of the pack",
                        f"use one of {', '.join(categories)}",
                    )
            overrides[outcome] = {
                category: self._style(f"{outcome}.{category}", value, propositions)
                for category, value in own.items()
            }
        content = json.dumps([propositions, styles, overrides], default=astuple)
        return Adherence(
            propositions=propositions,
            styles=styles,
            overrides=overrides,
            version=hashlib.sha256(content.encode()).hexdigest()[:32],
        )

    def _propositions(self) -> dict[str, str]:
        propositions = {}
        for name, text in self.data["propositions"].items():
            if not _ID.fullmatch(name):
                self._fail(f"proposition id {name!r}", "use small letters, digits and _")
            if not isinstance(text, str) or not text.strip():
                self._fail(f"proposition {name!r} has no sentence", "write what it says, in quotes")
            propositions[name] = " ".join(text.split())
        return propositions

    def _style(self, name: str, table: Mapping[str, Any], propositions: Mapping[str, str]) -> Style:
        lists: dict[str, tuple[str, ...]] = {"all": (), "none": ()}
        for key, ids in table.items():
            if key not in lists:
                self._fail(f"unknown key {key!r} in [{name}]", "use all and none")
            if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
                self._fail(f"{key} of [{name}] is no list of ids", 'write ["apology", …]')
            for one in ids:
                if one not in propositions:
                    self._fail(
                        f"[{name}] has {one!r}, which is no proposition", "define or drop it"
                    )
            lists[key] = tuple(ids)
        asked = [*lists["all"], *lists["none"]]
        if not asked:
            self._fail(f"[{name}] asks nothing", "list propositions in all, none or both")
        twice = next((one for one in asked if asked.count(one) > 1), None)
        if twice:
            self._fail(f"[{name}] lists {twice!r} twice", "list each proposition once")
        return Style(**lists)

    def _fail(self, what: str, remedy: str) -> NoReturn:
        raise AdherenceError(f"{self.path}: {what}; {remedy}")
