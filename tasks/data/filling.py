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
from tasks.data.candidates import messages_id, read_chat
from tasks.data.collect import CollectConfig, collect
from tasks.data.counts import Counts
from tasks.data.drafts import DraftWork, Place
from tasks.data.formats import read_tables
from tasks.data.sources import SourceConfig
from tasks.data.traces import TraceConfig
from warehouse.catalog import connect, look_up
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
    attempt: int
    status: str
    reason: str | None
    model: str
    prompt_id: str | None
    run_id: str
    angle: str
    messages: Sequence[Mapping[str, Any]]
    is_written: bool
    """True if a fill for its rule has written a file since, with it or without."""

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


@dataclass(frozen=True, slots=True)
class FilledFile:
    """A file that a fill has added to, and the rules that the fill was for."""

    path: str
    pack: str
    rule_ids: Sequence[str]


def file_source(path: str, name: str) -> SourceConfig:
    """Returns the source of a file of drafts' lines."""
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


def require_rules(pack: Pack, rule_ids: Sequence[str]) -> None:
    """Raises ValueError if one of the ids is not that of a rule of the pack."""
    if unknown := next((name for name in rule_ids if name not in pack.rule_ids), None):
        raise ValueError(
            f"pack {pack.id} has no rule {unknown!r}; give one of {', '.join(pack.rule_ids)}"
        )


def rules_of(pack: Pack) -> Iterator[tuple[str, Rule]]:
    """Yields the rules of a pack, each with its category."""
    for category, policy in pack.policies.items():
        for rule in policy.rules:
            yield category, rule


@dataclass(frozen=True, slots=True)
class Line:
    """What a line of a file says of its prompt, as it was written or as a person changed it."""

    rule_id: str | None
    ideal_response: str | None


@dataclass(frozen=True, slots=True)
class Survey:
    """What a refresh would take of the recipe's sources, a file of drafts and further drafts."""

    prompt_ids: frozenset[str]
    """All prompts that it would take."""
    drafted_ids: frozenset[str]
    """Those that only the further drafts have."""
    lines: Mapping[str, Line]
    """What the file says of each of its prompts."""
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
    has_lines = _has_lines(path)
    # A person may have deleted every line, and a source must have some.
    read = [one for one in sources if has_lines or not is_source(one, path)]
    if has_lines and not any(is_source(one, path) for one in sources):
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
        _lines_of(path) if has_lines else {},
        collected.counts.get(_DRAFTS, Counts.of(Counter())),
    )


def is_source(source: SourceConfig, path: Path) -> bool:
    """Returns True if a source reads the file at a path and no other."""
    return source.path is not None and Path(source.path).resolve() == path.resolve()


def _lines_of(path: Path) -> dict[str, Line]:
    """Returns what a file says of each of its prompts, of those that it can be read of."""
    lines = {}
    for table in read_tables(file_source(str(path), _FILE)):
        for row in table.rows():
            if messages := read_chat(row.values.get("messages")):
                said = (row.values.get(name) for name in ("rule", "ideal_response"))
                texts = (value if isinstance(value, str) else None for value in said)
                lines[messages_id(messages)] = Line(*texts)
    return lines


def _has_lines(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        return any(line.strip() for line in file)


def outdated(drafts: Sequence[StoredDraft], pack: Pack) -> list[StoredDraft]:
    """Returns the drafts at whose place the pack, which has changed since, gives another label."""
    labels: dict[tuple[str, str], Outcome | None] = {}
    outcomes: dict[str, Outcome | None] = {}
    for category, rule in rules_of(pack):
        outcomes[rule.id] = rule.outcome
        labels |= {(rule.id, one.text): one.ideal_response for one in angles(pack, category, rule)}
    old = []
    for draft in drafts:
        # Across the line of a rule, a place that the pack no longer names may have any label.
        usual = outcomes[draft.rule_id] if draft.side == "inside" else draft.ideal_response
        if labels.get((draft.rule_id, draft.angle), usual) != draft.ideal_response:
            old.append(draft)
    return old


def mislabelled(
    drafts: Sequence[StoredDraft], pack: Pack, lines: Mapping[str, Line]
) -> frozenset[str]:
    """Returns the prompts of outdated drafts whose label nobody has changed in the file since."""
    old = {(one.prompt_id, one.ideal_response) for one in outdated(drafts, pack)}
    return frozenset(name for name, line in lines.items() if (name, line.ideal_response) in old)


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
    work: DraftWork,
) -> pa.Table:
    """Returns the drafts to ask for: of each rule as many as are missing, of both sides and all
    angles alike. An error of an earlier run is asked for again in place of a new draft, until it
    has had all its attempts."""
    slots = _Slots()
    own = [one for one in drafts if one.drafting_id == work.drafting_id]
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
                # This run has retried its own errors already.
                is_open = (
                    draft.run_id != work.run_id and draft.attempt + 1 < work.stage.error_attempts
                )
                if draft.status == "error" and is_open and missing > 0:
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


def stored_drafts(rows: Sequence[Mapping[str, Any]]) -> list[StoredDraft]:
    """Returns the rows of lookup `drafts_of_rules`."""
    names = StoredDraft.__dataclass_fields__
    return [StoredDraft(**{name: row[name] for name in names}) for row in rows]
