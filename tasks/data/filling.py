"""Drafts → a file of prompts: how many each rule lacks, which drafts pass, and their rows."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from specs.angles import angles, hard_angle
from specs.policy import Outcome, Pack, Rule, Spec
from tasks.data.collect import CollectConfig, collect
from tasks.data.counts import Counts
from tasks.data.drafts import Place
from tasks.data.sources import SourceConfig
from tasks.data.traces import TraceConfig
from warehouse.catalog import connect, look_up
from warehouse.files import write_whole
from warehouse.home import Home

WANTED_DRAFTS = pa.schema(
    [("angle_id", pa.string()), ("spec_id", pa.string()), ("sample_index", pa.int64())]
)
_DRAFTS, _FILE = "(drafts)", "(file of drafts)"
"""Names of the sources that a survey adds to those of the recipe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDraft:
    """A draft in the warehouse."""

    draft_id: str
    angle_id: str
    drafting_id: str
    rule_id: str
    category: str
    side: str
    ideal_response: str | None
    near_id: str | None
    sample_index: int
    status: str
    model: str
    prompt_id: str | None
    run_id: str
    messages: Sequence[Mapping[str, Any]]
    is_written: bool | None
    """True if the run that made it went on to write its file."""

    def line(self) -> str:
        """Returns the row of the file that sources read."""
        row = {
            "messages": [
                {key: value for key, value in turn.items() if value is not None}
                for turn in self.messages
            ],
            "category": self.category,
            "ideal_response": self.ideal_response,
            "rule": self.rule_id,
            "side": self.side,
            "near": self.near_id,
            "model": self.model,
            "draft": self.draft_id,
        }
        return json.dumps(row, ensure_ascii=False)


def file_source(path: str, name: str) -> SourceConfig:
    """Returns the source of a file that `write_lines` wrote."""
    return SourceConfig(
        name=name,
        path=path,
        messages="messages",
        category="category",
        ideal_response="ideal_response",
    )


@dataclass(frozen=True, slots=True)
class HardPrompt:
    """A prompt that models fail on."""

    prompt_id: str
    rule_id: str
    ideal_response: str | None
    request: str
    """Its last message."""


def places_of(
    pack: Pack,
    rule_ids: Sequence[str],
    specs: Mapping[str, Spec],
    hard: Sequence[HardPrompt] | None = None,
) -> dict[str, list[Place]]:
    """Returns the places at which prompts for each rule are to be written.

    They are the rule's own angles; with `hard` prompts, one beside each of those in their place.
    `specs` has the spec of each category.
    """
    places: dict[str, list[Place]] = {}
    for category, rule in rules_of(pack):
        if rule.id not in rule_ids:
            continue
        if hard is None:
            found = angles(pack, category, rule)
        else:
            found = tuple(
                hard_angle(
                    category,
                    rule,
                    near_id=one.prompt_id,
                    near=one.request,
                    ideal_response=Outcome(one.ideal_response)
                    if one.ideal_response
                    else rule.outcome,
                )
                for one in hard
                if one.rule_id == rule.id
            )
        places[rule.id] = [Place(angle=one, rule=rule, spec=specs[category]) for one in found]
    return places


def rules_of(pack: Pack) -> Iterator[tuple[str, Rule]]:
    """Yields the rules of a pack, each with its category."""
    for category, policy in pack.policies.items():
        for rule in policy.rules:
            yield category, rule


@dataclass(frozen=True, slots=True)
class Survey:
    """What a refresh would take of the recipe's sources, a file of drafts and further drafts."""

    prompt_ids: frozenset[str]
    """All prompts that it would take."""
    drafted_ids: frozenset[str]
    """Those that only the further drafts have."""
    counts: Counts
    """The further drafts, by what would become of them."""


def survey(
    sources: Sequence[SourceConfig],
    drafts: Sequence[StoredDraft],
    *,
    path: Path,
    config: CollectConfig,
    pack_categories: Sequence[str],
) -> Survey:
    """Collects sources, the file at `path` and drafts as a refresh would, and keeps nothing.

    The drafts go through the same deduplication and decontamination as any source.
    """
    is_read = any(_is_file(source, path) for source in sources)
    read = [one for one in sources if path.exists() or not _is_file(one, path)]
    if path.exists() and not is_read:
        read.append(file_source(str(path), _FILE))
    with tempfile.TemporaryDirectory() as folder:
        if drafts:
            lines = Path(folder) / "drafts.jsonl"
            lines.write_text("".join(f"{one.line()}\n" for one in drafts), encoding="utf-8")
            read.append(file_source(str(lines), _DRAFTS))
        # Traces come last, so that a prompt of theirs is a duplicate and not the draft.
        read.sort(key=lambda one: isinstance(one, TraceConfig))
        home = Home(str(Path(folder) / "home"))
        collected = collect(
            read,
            config=config,
            pack_categories=pack_categories,
            home=home,
            connection=connect(home),
        )
        drafted = look_up(connect(home), "prompts_of_source", source=_DRAFTS)
    return Survey(
        frozenset(collected.prompts["prompt_id"].to_pylist()),
        frozenset(row["prompt_id"] for row in drafted),
        collected.counts.get(_DRAFTS, Counts.of(Counter())),
    )


def _is_file(source: SourceConfig, path: Path) -> bool:
    return source.path is not None and Path(source.path).absolute() == path.absolute()


def count_prompts(
    rule_ids: Sequence[str],
    drafts: Sequence[StoredDraft],
    cited: Mapping[str, frozenset[str]],
    kept: frozenset[str],
) -> dict[str, int]:
    """Returns the number of prompts for each rule: those that cite it, and its drafts that are
    kept."""
    found = {rule_id: set(cited.get(rule_id, ())) for rule_id in rule_ids}
    for draft in drafts:
        if draft.status == "ok" and draft.prompt_id in kept and draft.rule_id in found:
            found[draft.rule_id].add(draft.prompt_id)
    return {rule_id: len(prompt_ids) for rule_id, prompt_ids in found.items()}


@dataclass(slots=True)
class _Slots:
    """The drafts that a run wants, in the order in which they were added."""

    taken: dict[str, int] = field(default_factory=Counter)
    """By angle, the number of its drafts."""
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, place: Place, sample_index: int) -> None:
        row = {
            "angle_id": place.id,
            "spec_id": place.spec.id,
            "sample_index": sample_index,
        }
        self.rows.append(row)
        self.taken[place.id] = max(self.taken[place.id], sample_index + 1)


def plan_drafts(
    places: Mapping[str, Sequence[Place]],
    drafts: Sequence[StoredDraft],
    num_missing: Mapping[str, int],
    *,
    drafting_id: str,
) -> pa.Table:
    """Returns the drafts to ask for: of each rule as many as are missing, of both sides and all
    angles alike. A draft that was an engine error is asked for again in place of a new one."""
    slots = _Slots()
    own = [one for one in drafts if one.drafting_id == drafting_id]
    for rule_id, of_rule in places.items():
        by_id = {place.id: place for place in of_rule}
        missing = num_missing.get(rule_id, 0)
        if missing <= 0 or not of_rule:
            continue
        for draft in own:
            if draft.angle_id in by_id:
                slots.taken[draft.angle_id] = max(
                    slots.taken[draft.angle_id], draft.sample_index + 1
                )
                if draft.status == "error" and missing > 0:
                    slots.add(by_id[draft.angle_id], draft.sample_index)
                    missing -= 1
        for _ in range(missing):
            place = _rarest(of_rule, slots.taken)
            slots.add(place, slots.taken[place.id])
    return pa.Table.from_pylist(slots.rows, schema=WANTED_DRAFTS)


def _rarest(places: Sequence[Place], taken: Mapping[str, int]) -> Place:
    """Returns the angle with the fewest drafts, of the side with the fewest."""
    of_side: Counter[str] = Counter()
    for place in places:
        of_side[place.angle.side] += taken.get(place.id, 0)
    return min(places, key=lambda one: (of_side[one.angle.side], taken.get(one.id, 0)))


def append_lines(path: Path, drafts: Sequence[StoredDraft]) -> None:
    """Adds drafts to a file of prompts, whose other lines stay as they are."""
    if not drafts:
        return
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    if before and not before.endswith("\n"):
        before += "\n"
    with write_whole(path) as partial:
        text = before + "".join(f"{one.line()}\n" for one in drafts)
        partial.write_text(text, encoding="utf-8")


def stored_drafts(rows: Sequence[Mapping[str, Any]]) -> list[StoredDraft]:
    """Returns the rows of lookup `drafts_of_rules`."""
    names = StoredDraft.__dataclass_fields__
    return [StoredDraft(**{name: row[name] for name in names}) for row in rows]
