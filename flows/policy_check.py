"""A policy pack held against what its author most likely meant: its sizes, and what to mend."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flows import terminal
from flows.show import SHORT_ID
from flows.terminal import Column
from specs.lint import Budgets, Finding, Measure, lint
from specs.pack import read_pack
from specs.pages import Faults
from specs.places import Places
from specs.policy import GUIDE, Outcome, Pack, Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySize:
    """The parts of a policy, counted, and its length."""

    category: str
    rules: int
    outcomes: dict[str, int]
    """Rules by outcome, or `guide`."""
    cases: int
    examples: int
    full: int
    """Length of the policy in full."""
    summary: int
    """Length of its line in every spec."""
    spec: int
    """Length of its compiled spec."""
    spec_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The outcome of a check of a pack."""

    unit: str
    """Unit of the lengths: `words`, or `tokens` of a recipe's model."""
    policies: list[PolicySize]
    """None of a pack with faults."""
    faults: list[str]
    """The faults that keep the pack from loading."""
    findings: list[Finding]
    in_part: list[str]
    """Files with a fault, in which a part of the findings is not looked for."""
    not_read: Sequence[str]
    """Files that look like policies and are none."""


def check_pack(
    folder: str,
    *,
    budgets: Budgets,
    recipe: str | None = None,
    home: str | None = None,
) -> Checked:
    """Returns the sizes, faults and findings of a pack; raises PackError for what is no folder.

    `recipe` names the model whose tokens are counted; `home` is the warehouse that rules are
    compared with, if one is there.
    """
    pack, faults = read_pack(folder)
    measure = _measure(recipe)
    if pack is None:
        return Checked(
            unit=measure.unit,
            policies=[],
            faults=faults.sentences,
            findings=[],
            in_part=sorted(faults.paths),
            not_read=(),
        )
    places = Places.of(folder)
    findings = lint(
        pack,
        places,
        budgets=budgets,
        measure=measure,
        former=_former_texts(pack, home),
    )
    is_whole = not faults.found
    sizes = [_size(pack, one, measure) for one in pack.policies.values()] if is_whole else []
    return Checked(
        unit=measure.unit,
        policies=sizes,
        faults=faults.sentences,
        findings=[one for one in findings if _is_no_echo(one, places, faults)],
        in_part=sorted(faults.paths),
        not_read=pack.not_read,
    )


_OF_WORDS = ("duplicate", "exclusion", "vague")
"""Kinds of findings that need no more of a policy than the words in which they stand."""


def _is_no_echo(finding: Finding, places: Places, faults: Faults) -> bool:
    """Returns False for a finding that may have no other cause than a fault of its file."""
    path = finding.place.path
    return path in places.files and (str(path) not in faults.paths or finding.kind in _OF_WORDS)


def _measure(recipe: str | None) -> Measure:
    if recipe is None:
        return Measure()
    from flows.preview import measure_of
    from flows.recipe import load_recipe

    return measure_of(load_recipe(recipe).engine)


def _former_texts(pack: Pack, home: str | None) -> list[str]:
    """Returns the specs of a warehouse that bear the pack's version; none without a warehouse.

    Raises HomeError if a place was named and holds no warehouse.
    """
    from flows.reading import reading
    from flows.run import home_at
    from warehouse.catalog import connect, look_up
    from warehouse.home import has_warehouse

    place = home_at(home)
    if home is None and not has_warehouse(place):
        return []
    with reading(place):
        rows = look_up(connect(place), "specs_of_version", pack=pack.id, version=pack.version)
        return [row["text"] for row in rows]


def _size(pack: Pack, policy: Policy, measure: Measure) -> PolicySize:
    spec = pack.spec([policy.id])
    return PolicySize(
        category=policy.id,
        rules=len(policy.rules),
        outcomes=dict(Counter(rule.effect for rule in policy.rules)),
        cases=sum(len(rule.cases) for rule in policy.rules),
        examples=sum(len(rule.examples) for rule in policy.rules),
        full=measure.count(policy.render()),
        summary=measure.count(policy.render_summary()),
        spec=measure.count(spec.text),
        spec_id=spec.id,
    )


def show_checked(checked: Checked, *, as_json: bool) -> None:
    """Prints sizes as a table and findings a line each, or all as one JSON object; faults go to
    stderr as well, a line each."""
    for fault in checked.faults:
        terminal.line(f"precept: {fault}", err=True)
    if as_json:
        findings = [_flat(finding) for finding in checked.findings]
        terminal.as_json({**asdict(checked), "findings": findings})
        return
    if checked.policies:
        _print_sizes(checked)
    terminal.lines(*map(str, checked.findings))
    terminal.line(f"faults: {len(checked.faults)}, findings: {len(checked.findings)}")
    if checked.in_part:
        terminal.line(
            f"precept: checked in part: {', '.join(checked.in_part)}; mend the faults and check "
            "again",
            err=True,
        )
    for name in checked.not_read:
        terminal.line(
            f"precept: not read: {name}; a policy is a file that ends on .md, in the folder itself",
            err=True,
        )


def _flat(finding: Finding) -> dict[str, Any]:
    place = {"path": str(finding.place.path), "line": finding.place.line}
    return {**place, "kind": finding.kind, "text": finding.text, "remedy": finding.remedy}


def _print_sizes(checked: Checked) -> None:
    """Prints what policies consist of, and how long they are: two tables, which fit 80 columns."""
    used = {name for size in checked.policies for name in size.outcomes}
    outcomes = [name for name in (*Outcome, GUIDE) if name in used]
    parts, lengths = [], []
    for size in checked.policies:
        by_outcome = [size.outcomes.get(name, 0) for name in outcomes]
        counts = [size.rules, *by_outcome, size.cases, size.examples]
        parts.append([size.category, *map(str, counts)])
        long = map(str, (size.full, size.summary, size.spec))
        lengths.append([size.category, *long, size.spec_id[:SHORT_ID]])
    names = ["rules", *outcomes, "cases", "examples"]
    columns = [Column("category"), *(Column(name, is_number=True) for name in names)]
    terminal.table(columns, parts, title="Rules, cases and worked examples")
    columns = [Column(name, is_number=True) for name in ("full", "summary", "spec")]
    columns = [Column("category"), *columns, Column("spec id")]
    terminal.table(columns, lengths, title=f"Length in {checked.unit}")


def exit_code(checked: Checked) -> int:
    """Returns 2 for a pack that cannot be loaded, 1 if there is something to mend, else 0."""
    if checked.faults:
        return 2
    return 1 if checked.findings else 0


def _budget(option: str, text: str | None, default: tuple[int, int]) -> tuple[int, int]:
    """Returns the least and the greatest of "2000-5000"; raises ValueError for another text."""
    if text is None:
        return default
    least, dash, most = text.partition("-")
    if not (dash and least.isdecimal() and most.isdecimal() and int(least) <= int(most)):
        raise ValueError(
            f"{option} {text!r} is no range; write the least and the greatest, such as 2000-5000"
        )
    return int(least), int(most)


def budgets_of(full: str | None, summary: str | None) -> Budgets:
    """Returns the budgets of the options, or the usual ones where an option is not given."""
    usual = Budgets()
    return Budgets(
        full=_budget("--full", full, usual.full),
        summary=_budget("--summary", summary, usual.summary),
    )
