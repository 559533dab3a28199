"""Which rules of a pack the warehouse exercises, and which it hardly does."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from flows import show, terminal
from flows.reading import Format, print_rows
from flows.recipe import load_recipe
from specs.pack import load_pack
from specs.policy import Pack
from tasks.paths import find
from warehouse.catalog import connect, look_up
from warehouse.home import Home


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleCoverage:
    """A rule, what exercises it, and what came of that."""

    category: str
    rule_id: str
    effect: str
    """The outcome, or `guide`."""
    num_prompts: int
    """Prompts whose completions cite the rule, and those that were drafted for it."""
    num_drafted: int
    """Those that were drafted for it."""
    num_completions: int
    """Completions that cite it."""
    num_accepted: int
    mean_score: float | None
    """Mean of all their judge scores; None without one."""
    score_deviation: float | None
    """Standard deviation of those scores."""
    num_answers: int
    """Graded answers of trained models that cite it, in the latest evaluation."""
    mean_grade: float | None
    """Mean of their grades, from 0 to 1."""
    under_floor: bool
    """True if fewer prompts exercise it than the floor."""


def pack_of(name: str) -> Pack:
    """Returns the pack in a folder, or that of a recipe; raises a ValueError if it is neither."""
    folder = find(name, accept=Path.is_dir)
    return load_pack(folder) if folder else load_recipe(name).load_pack()


def cover(home: Home, pack: Pack, *, floor: int) -> list[RuleCoverage]:
    """Returns the coverage of every rule of a pack, in reading order."""
    places = [
        (category, rule) for category, policy in pack.policies.items() for rule in policy.rules
    ]
    found = look_up(
        connect(home), "coverage_of_rules", pack=pack.id, rule_ids=[rule.id for _, rule in places]
    )
    return [
        RuleCoverage(
            category=category,
            effect=rule.effect,
            under_floor=row["num_prompts"] < floor,
            **row,
        )
        for (category, rule), row in zip(places, found, strict=True)
    ]


def print_coverage(name: str, home: Home, option: str, *, floor: int, kind: Format) -> None:
    """Prints the coverage of the rules of a pack or a recipe, and names those under the floor.

    `option` is the --home option of commands that are suggested.
    """
    rules = cover(home, pack_of(name), floor=floor)
    rows = pa.Table.from_pylist([_row(rule) for rule in rules], schema=_SCHEMA)
    if kind != "table":
        print_rows(rows.to_reader(), kind)
        return
    show.table(rows)
    recipe = "RECIPE" if find(name, accept=Path.is_dir) else shlex.quote(name)
    under = [f"{rule.rule_id} ({rule.num_prompts})" for rule in rules if rule.under_floor]
    uncited = [rule.rule_id for rule in rules if not rule.num_completions]
    terminal.lines(
        _named(under, f"with fewer than {floor} prompts"),
        _named(uncited, "that no completion cites"),
        *([f"next: precept policies fill {recipe} --floor {floor}{option}"] if under else []),
    )


def _named(rules: Sequence[str], fault: str) -> str:
    if not rules:
        return f"rules {fault}: none"
    return f"rules {fault}: {len(rules)}, {', '.join(rules)}"


def _row(rule: RuleCoverage) -> dict[str, object]:
    return {name: getattr(rule, name) for name in _SCHEMA.names}


_SCHEMA = pa.schema(
    [
        ("category", pa.string()),
        ("rule_id", pa.string()),
        ("effect", pa.string()),
        ("num_prompts", pa.int64()),
        ("num_drafted", pa.int64()),
        ("num_completions", pa.int64()),
        ("num_accepted", pa.int64()),
        ("mean_score", pa.float64()),
        ("score_deviation", pa.float64()),
        ("num_answers", pa.int64()),
        ("mean_grade", pa.float64()),
        ("under_floor", pa.bool_()),
    ]
)
