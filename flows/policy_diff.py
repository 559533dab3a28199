"""What an edit of a policy pack changes: its parts word by word, the rows that were made under the
old text, and what it costs to make them again. Nothing is made or written."""

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from flows import show, terminal
from flows.estimate import Cost, cost_of
from flows.reading import reading
from flows.run import home_at
from specs.diff import full_texts, pack_changes, word_pieces
from specs.pack import load_pack
from specs.parts import Change
from specs.policy import Pack, PackError
from tasks.engine.requests import EngineConfig
from warehouse.catalog import connect, look_up

_MARKS = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}
_STYLES = {"same": "", "removed": "red strike", "added": "green"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Remake:
    """Rows of a stage that the next refresh of a recipe makes again, and what such rows took."""

    recipe: str
    stage: str
    num_rows: int
    """Of judgements, as many as there were; a judge that races may need more or fewer."""
    output_tokens: int | None = None
    """None, as the next two, if no refresh of the recipe was completed here."""
    hours: float | None = None
    gpu_hours: float | None = None
    cost: float | None = None
    """GPU-hours and tokens at the prices of the recipe; None if it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackDiff:
    """The differences between two packs, or a pack and a warehouse, and their consequences."""

    before: str
    after: str
    changes: list[Change]
    stale: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the warehouse that were made under the old text, by category and table."""
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    """Checkpoints that descend from such rows."""
    remakes: list[Remake] = field(default_factory=list)
    looked_at: str | None = None
    """Warehouse that was looked at; None if none was."""
    unseen: list[str] = field(default_factory=list)
    """Categories of which the warehouse has no spec, because nothing was asked about them."""


def diff_packs(before: str, after: str | None, home: str | None) -> PackDiff:
    """Returns what differs between two folders, or between a warehouse and one folder.

    Raises PackError for a folder that is no pack, HomeError if a warehouse is needed, or named, and
    is none.
    """
    new = load_pack(after or before)
    changes: list[Change] = []
    if after is not None:
        texts = full_texts(load_pack(before))
        changes = pack_changes(texts, full_texts(new), names=(before, after))
        if home is None:
            return PackDiff(before=before, after=after, changes=changes)
    place = home_at(home)
    with reading(place):
        connection = connect(place)
        stored = look_up(connection, "specs_of_pack", pack=new.id)
        shown = {category for row in stored for category in row["categories"]}
        if after is None:
            changes = _changes_since(new, stored, shown, (place.url, before))
        return PackDiff(
            before=before if after else place.url,
            after=after or before,
            changes=changes,
            looked_at=place.url,
            unseen=[name for name in new.policies if name not in shown],
            **_descent(connection, new, stored),
        )


def _changes_since(
    new: Pack, stored: Sequence[Mapping[str, Any]], shown: Set[str], names: tuple[str, str]
) -> list[Change]:
    """Returns the parts in which a pack differs from the specs of a warehouse, of those categories
    that it has specs of; raises PackError if it has none."""
    url, folder = names
    if not stored:
        raise PackError(
            f"{url} has no spec of pack {new.id!r}; give two folders, or the --home that was made "
            "with it"
        )
    before = [row["text"] for row in stored if row["is_current"]]
    # The summaries, which every spec has, tell of a policy that is new.
    after = [new.spec([], detail="summary").text]
    after += [new.spec([name]).text for name in new.policies if name in shown]
    return pack_changes(before, after, names=("the warehouse", folder))


def _descent(
    connection: duckdb.DuckDBPyConnection, pack: Pack, stored: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Returns the rows and checkpoints made under specs that the pack does not compile to, and
    what it takes to make them again, by the fields of `PackDiff`."""
    old = [row for row in stored if _compiled(pack, row) != row["spec_id"]]
    spec_ids = [row["spec_id"] for row in old]
    # Nothing is made again for a category that the pack has no more.
    replaced = [row["spec_id"] for row in old if _compiled(pack, row)]
    rows = look_up(connection, "rows_to_remake", spec_ids=replaced)
    return {
        "stale": look_up(connection, "stale_rows", spec_ids=spec_ids),
        "checkpoints": look_up(connection, "stale_checkpoints", spec_ids=spec_ids),
        "remakes": [_remake(connection, row) for row in rows],
    }


def _compiled(pack: Pack, row: Mapping[str, Any]) -> str | None:
    """Returns the id of the pack's spec of a stored one's categories; None if it lacks one."""
    if not set(row["categories"]) <= set(pack.policies):
        return None
    return pack.spec(row["categories"], detail=row["detail"]).id


def _remake(connection: duckdb.DuckDBPyConnection, row: Mapping[str, Any]) -> Remake:
    """Returns what it takes to make the stale rows of a stage again."""
    recipe, stage, num_rows = row["recipe"], row["stage"], row["num_rows"]
    cost = cost_of(connection, recipe, stage, num_rows)
    if cost is None:
        return Remake(recipe=recipe, stage=stage, num_rows=num_rows)
    resolved = json.loads(row["resolved_recipe"])
    engine = _engine(resolved, stage)
    gpu_hours = cost.seconds * engine.num_gpus / 3600
    return Remake(
        recipe=recipe,
        stage=stage,
        num_rows=num_rows,
        output_tokens=round(cost.output_tokens),
        hours=cost.seconds / 3600,
        gpu_hours=gpu_hours,
        cost=_price(resolved, engine, cost, gpu_hours),
    )


def _engine(resolved: Mapping[str, Any], stage: str) -> EngineConfig:
    """Returns the engine of a stage of a resolved recipe."""
    engine = resolved.get("engine")
    if stage.startswith("judge"):
        jury = resolved.get("judge_engines") or []
        named = (one for one in jury if stage.startswith(f"judge {one['model']}@"))
        engine = (
            next(named, None) or next(iter(jury), None) or resolved.get("judge_engine") or engine
        )
    return EngineConfig.model_validate(engine or {})


def _price(
    resolved: Mapping[str, Any], engine: EngineConfig, cost: Cost, gpu_hours: float
) -> float | None:
    if engine.endpoint is not None:
        return cost.at(engine.endpoint.prices) if engine.endpoint.prices else None
    price = resolved.get("gpu_hour_price")
    return None if price is None else gpu_hours * float(price)


def show_diff(diff: PackDiff, *, as_json: bool) -> None:
    """Prints each part that changed, then what descends from the old text and what it costs."""
    if as_json:
        terminal.as_json(asdict(diff))
        return
    for change in diff.changes:
        title = f"{change.category}, {change.part}: {change.change}"
        if pieces := _pieces(change):
            terminal.block(title, *pieces)
        else:
            terminal.heading(title)
    if not diff.changes:
        terminal.line(f"no word that a model sees differs between {diff.before} and {diff.after}")
    if diff.looked_at is None:
        terminal.line("rows and costs: give --home the warehouse to look at")
        return
    if diff.unseen:
        terminal.line(f"no row of the warehouse was made under: {', '.join(diff.unseen)}")
    _show_descent(diff)


def _pieces(change: Change) -> list[terminal.Part]:
    """Returns the words of a part, those that were removed and added in colour and in marks."""
    if change.before is None and change.after is None:
        return []
    before, after = change.before or "", change.after or ""
    parts: list[terminal.Part] = []
    for kind, text in word_pieces(before, after):
        opening, closing = _MARKS[kind]
        words = text.rstrip()
        parts.append((f"{opening}{words}{closing}{text[len(words) :]}", _STYLES[kind]))
    return parts


def _show_descent(diff: PackDiff) -> None:
    tables: list[tuple[str, list[dict[str, Any]]]] = [
        ("Rows made under the old text", diff.stale),
        ("Checkpoints that descend from it", diff.checkpoints),
        ("What the next refresh makes again", [asdict(one) for one in diff.remakes]),
    ]
    for title, rows in tables:
        terminal.line("")
        if rows:
            show.table(pa.Table.from_pylist([_rounded(row) for row in rows]), title=title)
        else:
            terminal.line(f"{title}: none")


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row whose hours and costs have three digits that count."""
    return {
        name: float(f"{value:.3g}") if isinstance(value, float) else value
        for name, value in row.items()
    }
