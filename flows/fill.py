"""rules that few prompts exercise → drafts → a file of prompts that a recipe reads.

A draft is a row before it is a prompt, so a fill that was killed goes on where it stopped. The
drafts are collected with the recipe's sources as a refresh would collect them, and those that are
left go into the file. A person may edit the file or delete lines: later fills only add to it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
from prefect import flow

from flows.recipe import SUITES, Recipe
from flows.run import RunContext, home_at, open_run
from flows.steps import makes, run_function, run_stage
from specs.template import load_template
from tasks.data.counts import Counts
from tasks.data.drafts import DraftWork, Place
from tasks.data.filling import (
    FilledFile,
    HardPrompt,
    StoredDraft,
    Survey,
    is_source,
    mislabelled,
    outdated,
    places_of,
    plan_drafts,
    require_rules,
    rules_of,
    stored_drafts,
    survey,
)
from tasks.evaluation.suites import load_suites
from tasks.stage import StageFigures
from warehouse.catalog import look_up
from warehouse.files import append_lines

_ROUNDS = 5
"""Most times that drafts are asked for in place of those that came to nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FillOptions:
    """The request that a fill serves."""

    out: str
    """The file."""
    rules: tuple[str, ...] = ()
    """Rules to fill. Empty: all."""
    floor: int | None = None
    """Prompts that each is to have. None: `fill.floor`."""
    mine: bool = False
    """Write prompts like those that models fail on."""
    below: float = 0.5
    """Share of accepted completions, or mean reward or grade, under which a prompt counts so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledRule:
    """A rule, and its prompts before and after a fill; of mining, its hard drafts."""

    rule_id: str
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """The outcome of a fill."""

    run_id: str
    home: str
    out: str
    num_written: int
    """Prompts added to the file."""
    rules: Sequence[FilledRule]
    """Those that lacked prompts."""
    floor: int
    statuses: Mapping[str, int]
    """Drafts of this run by status."""
    faults: Sequence[str]
    """Reasons of those that are errors, each once."""
    counts: Counts
    """Drafts that no file had before, by what would become of them."""
    num_mislabelled: int
    """Prompts in the file whose label is not the one that the pack, which has changed since they
    were written, gives them."""
    num_hard: int | None = None
    """Hard prompts that were mined; None without `mine`."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Hard prompts that were not mined, by reason."""
    is_source: bool = False
    """True if a source of the recipe reads the file."""


@dataclass(slots=True)
class _Filling:
    """State that the steps of a fill share."""

    run: RunContext
    options: FillOptions
    rule_ids: list[str]
    path: Path
    work: DraftWork
    by_rule: Mapping[str, Sequence[Place]]
    left_out: Mapping[str, int]
    surveyed: Survey | None = None
    counted: dict[str, int] = field(default_factory=dict)
    mislabelled: frozenset[str] = frozenset()
    """Prompts in the file with a label that the pack no longer gives."""

    @property
    def floor(self) -> int:
        return self.options.floor or self.run.recipe.fill.floor

    @property
    def missing(self) -> dict[str, int]:
        """By rule, the prompts that it lacks."""
        lacking = {name: self.floor - count for name, count in self.counted.items()}
        return {name: count for name, count in lacking.items() if count > 0}


@flow(name="fill", flow_run_name="fill {recipe.name}", persist_result=False, log_prints=False)
def fill(recipe: Recipe, home: str | None, options: FillOptions) -> Filled:
    """Has prompts written for the rules that lack some, and adds them to a file."""
    with open_run("fill", recipe, home_at(home)) as run:
        filling = _plan(run, options)
        take_stock(filling)
        before = dict(filling.counted)
        rules = list(filling.missing)
        for _ in range(_ROUNDS):
            wanted = plan_drafts(
                filling.by_rule, _drafts(filling), filling.missing, work=filling.work
            )
            if wanted.num_rows == 0:
                break
            write_drafts(run, filling.work, wanted)
            take_stock(filling)
        written = _write_file(filling)
        run.update(filled=FilledFile(str(filling.path), run.pack.id, filling.rule_ids))
        rows = [
            FilledRule(rule_id=name, before=before[name], after=filling.counted[name])
            for name in rules
        ]
        return _outcome(filling, rows, num_written=len(written))


def _outcome(filling: _Filling, rules: Sequence[FilledRule], *, num_written: int) -> Filled:
    run, options = filling.run, filling.options
    assert filling.surveyed
    drafts = [one for one in _drafts(filling) if one.run_id == run.id]
    hard = {place.angle.near_id for places in filling.by_rule.values() for place in places}
    return Filled(
        run_id=run.id,
        home=run.home.url,
        out=options.out,
        num_written=num_written,
        rules=rules,
        floor=filling.floor,
        statuses=Counter(one.status for one in drafts),
        faults=list(dict.fromkeys(one.reason or "" for one in drafts if one.status == "error")),
        counts=filling.surveyed.counts,
        num_mislabelled=len(filling.mislabelled),
        num_hard=len(hard) if options.mine else None,
        left_out=filling.left_out,
        is_source=any(is_source(one, filling.path) for one in run.recipe.sources),
    )


def _plan(run: RunContext, options: FillOptions) -> _Filling:
    """Returns what is to be filled; raises ValueError for a rule that the pack lacks."""
    recipe, pack = run.recipe, run.pack
    require_rules(pack, options.rules)
    rule_ids = list(dict.fromkeys(options.rules or pack.rule_ids))
    categories = {category for category, rule in rules_of(pack) if rule.id in rule_ids}
    specs = run.compile_specs([[category] for category in sorted(categories)])
    hard, left_out = _mine(run, options, rule_ids) if options.mine else (None, {})
    by_rule = places_of(pack, rule_ids, specs, hard)
    work = DraftWork(
        config=recipe.fill,
        stage=recipe.stage,
        pack=pack,
        places={place.id: place for places in by_rule.values() for place in places},
        model="" if recipe.fill.function else run.version(recipe.engine),
        run_id=run.id,
        template=load_template("fill", recipe.generate.template),
    )
    if options.mine:
        rule_ids = [name for name in rule_ids if by_rule[name]]
    path = Path(options.out).resolve()
    return _Filling(run, options, rule_ids, path, work, by_rule, left_out)


def _mine(
    run: RunContext, options: FillOptions, rule_ids: Sequence[str]
) -> tuple[list[HardPrompt], dict[str, int]]:
    """Returns the prompts that models fail on, and the number of those that are left out."""
    suites = [suite.name for suite in load_suites(run.recipe.suite_names, SUITES)]
    rows = look_up(
        run.warehouse(),
        "hard_prompts",
        rule_ids=list(rule_ids),
        below=options.below,
        suites=suites,
    )
    hard, left_out = [], Counter[str]()
    for row in rows:
        if row["is_of_suite"]:
            # A model must not learn what it is measured by, or anything near it.
            left_out["of a suite that the recipe asks"] += 1
        elif row["rule_id"] is None:
            left_out["cite none of these rules"] += 1
        else:
            names = HardPrompt.__dataclass_fields__
            hard.append(HardPrompt(**{name: row[name] for name in names}))
    return hard, dict(left_out)


def take_stock(filling: _Filling) -> None:
    """Counts the prompts of each rule: those that a refresh would take, with the drafts so far."""
    run, options = filling.run, filling.options
    drafts = _drafts(filling)
    collecting = run.recipe.collect
    suites = [suite.source for suite in load_suites(run.recipe.suite_names, SUITES)]
    held_out = [
        *collecting.decontaminate,
        *(source for source in suites if source not in collecting.decontaminate),
    ]
    filling.surveyed = survey(
        run.recipe.all_sources,
        _unwritten(filling, drafts),
        path=filling.path,
        config=collecting.model_copy(update={"decontaminate": held_out}),
        pack_categories=list(run.pack.policies),
    )
    filling.mislabelled = mislabelled(drafts, run.pack, filling.surveyed.lines)
    kept = filling.surveyed.prompt_ids - filling.mislabelled
    prompts: set[tuple[str, str | None]] = {
        (one.prompt_id, one.rule_id)
        for one in drafts
        if one.prompt_id in kept and (one.near_id or not options.mine)
    }
    if not options.mine:
        lines = filling.surveyed.lines
        prompts |= {(name, lines[name].rule_id) for name in kept & lines.keys()}
        rows = look_up(
            run.warehouse(), "prompts_citing", pack=run.pack.id, rule_ids=filling.rule_ids
        )
        prompts |= {(row["prompt_id"], row["rule_id"]) for row in rows}
    counts = Counter(rule_id for _, rule_id in prompts)
    filling.counted = {rule_id: counts[rule_id] for rule_id in filling.rule_ids}


def _drafts(filling: _Filling) -> list[StoredDraft]:
    rows = look_up(
        filling.run.warehouse(),
        "drafts_of_rules",
        pack=filling.run.pack.id,
        rule_ids=filling.rule_ids,
    )
    return stored_drafts(rows)


def _unwritten(filling: _Filling, drafts: Sequence[StoredDraft]) -> list[StoredDraft]:
    """Returns the drafts that the file never had; of a new file, all."""
    is_new = not filling.path.exists()
    usable = [one for one in drafts if one.status == "ok" and (is_new or not one.is_written)]
    old = {one.draft_id for one in outdated(usable, filling.run.pack)}
    return [one for one in usable if one.draft_id not in old]


@makes("draft", "drafts", of=("specs",))
def write_drafts(run: RunContext, work: DraftWork, wanted: pa.Table) -> StageFigures:
    """Makes the drafts that are missing, by the generator or by the function of the recipe."""
    run.relations["wanted_drafts"] = wanted
    if work.config.function is None:
        return run_stage(run, work, run.recipe.engine)
    return run_function(run, work)


def _write_file(filling: _Filling) -> list[StoredDraft]:
    """Adds the drafts that passed to the file, each prompt once; returns them."""
    assert filling.surveyed
    passed = {
        draft.prompt_id: draft
        for draft in reversed(_unwritten(filling, _drafts(filling)))
        if draft.prompt_id in filling.surveyed.drafted_ids
    }
    written = list(reversed(passed.values()))
    if written:
        append_lines(filling.path, "".join(f"{one.line()}\n" for one in written).encode())
    return written
