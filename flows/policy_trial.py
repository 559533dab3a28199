"""A policy pack tried on a model: which rules claim its cases and the prompts of a recipe.

The generator's template shows a model each prompt under spec(category), several times. The rows
stand in a temporary warehouse, which is deleted.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pyarrow as pa

from flows import terminal
from flows.preflight import require_ray
from flows.recipe import Recipe, load_recipe
from specs.claims import Doubt, Trial, find_doubts
from specs.pack import load_pack
from specs.places import Place, Places
from specs.policy import Pack
from specs.prompts import Message
from tasks.data.candidates import messages_id
from tasks.data.collect import collect
from tasks.data.generate import GenerateWork
from tasks.data.prompt_rows import with_version
from tasks.engine.cluster import start_ray
from tasks.engine.pool import EnginePool
from tasks.stage import Stage
from warehouse.catalog import connect, look_up
from warehouse.home import Home
from warehouse.shards import write_shard
from warehouse.tables import PROMPTS, Prompt, Turn

_CASE = "case "
"""Begins the source of a prompt that is a case; the id of its rule follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedDoubt:
    """A doubt, and the line of the pack at which it is settled: that of its first rule."""

    place: str
    doubt: Doubt


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """The outcome of a trial of a pack on a model."""

    model: str
    num_prompts: int
    num_samples: int
    """Samples of all prompts that can be used."""
    num_unread: int
    """Prompts without such a sample."""
    unread: dict[str, int]
    """Samples that cannot be used, by the reason."""
    doubts: list[PlacedDoubt]


def try_pack(folder: str, recipe: str, *, num_prompts: int, num_samples: int) -> Tried:
    """Returns what the judge model of a recipe makes of a pack's cases, and of up to `num_prompts`
    prompts of each category that the recipe's sources have.

    Raises ValueError if the model cannot be served, if there is nothing to ask, or if no reply can
    be used.
    """
    chosen = load_recipe(recipe)
    pack = load_pack(folder)
    chosen.check_models()
    require_ray()
    with tempfile.TemporaryDirectory() as temporary:
        home = Home(temporary)
        # A prompt of the recipe may be a case as well.
        drawn = {row.prompt_id: row for row in _drawn(chosen, pack, home, num_prompts)}
        rows = list((drawn | {row.prompt_id: row for row in _cases(pack)}).values())
        if not rows:
            raise ValueError(
                f"pack {pack.id} has no case and recipe {chosen.name} no prompt with a category of "
                "it; write cases, or name a recipe with prompts"
            )
        _ask(chosen, pack, home, (rows, num_samples))
        return told_by(home, folder, model=chosen.judging_engine.version, asked=len(rows))


def told_by(home: Home, folder: str, *, model: str, asked: int) -> Tried:
    """Returns what the completions of a warehouse tell of a pack, of so many prompts asked.

    Raises ValueError if none of them can be used.
    """
    connection = connect(home)
    trials = [
        Trial(
            category=row["category"],
            prompt=row["prompt"],
            expected=row["expected"],
            rule_id=row["source"].removeprefix(_CASE) if row["source"].startswith(_CASE) else None,
            reasonings=tuple(row["reasonings"]),
        )
        for row in look_up(connection, "trial_reasonings")
    ]
    reasons = look_up(connection, "trial_reasons")
    unread = {row["reason"]: row["num_samples"] for row in reasons}
    if not trials:
        raise ValueError(
            f"no reply of {model} to {asked} prompts can be used ({_counted(unread)}); name a "
            "recipe whose judge model has room for a spec, and reasons"
        )
    pack, places = load_pack(folder), Places.of(folder)
    return Tried(
        model=model,
        num_prompts=asked,
        num_samples=sum(len(trial.reasonings) for trial in trials),
        num_unread=asked - len(trials),
        unread=unread,
        doubts=[
            PlacedDoubt(place=str(_place(pack, places, doubt)), doubt=doubt)
            for doubt in find_doubts(pack, trials)
        ],
    )


def _place(pack: Pack, places: Places, doubt: Doubt) -> Place:
    if doubt.rules:
        return places.of_rule(doubt.rules[0])
    return places.of_policy(pack.policies[doubt.category])


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in reasons.items())


def _cases(pack: Pack) -> list[Prompt]:
    """Returns the cases of a pack as prompts; one that two rules have stands once."""
    rows: dict[str, Prompt] = {}
    for category, policy in pack.policies.items():
        for rule in policy.rules:
            for case in rule.cases:
                turn: Message = {"role": "user", "content": case.text}
                row = Prompt(
                    prompt_id=messages_id([turn]),
                    categories=[category],
                    ideal_response=case.outcome.value if case.outcome else None,
                    source=f"{_CASE}{rule.id}",
                    split="train",
                    language="en",
                    transform=None,
                    metadata=[],
                    created_at=datetime.now(UTC),
                    messages=[Turn(role="user", content=case.text)],
                )
                rows.setdefault(row.prompt_id, with_version(row))
    return list(rows.values())


def _drawn(recipe: Recipe, pack: Pack, home: Home, num_prompts: int) -> list[Prompt]:
    """Returns prompts of the recipe's sources, up to so many of each category.

    They come in the order of their ids, which are hashes: the same ones each time, and no file's
    beginning.
    """
    sources = [source for source in recipe.sources if not source.assign_category]
    if not sources or not num_prompts:
        return []
    with tempfile.TemporaryDirectory() as read:
        place = Home(read)
        collect(
            sources,
            config=recipe.collect,
            pack_categories=list(pack.policies),
            home=place,
            connection=connect(home),
        )
        rows = look_up(connect(place), "drawn_prompts", num_prompts=num_prompts)
    return [
        Prompt(**{**row, "messages": [Turn(**turn) for turn in row["messages"]]}) for row in rows
    ]


def _ask(recipe: Recipe, pack: Pack, home: Home, asked: tuple[Sequence[Prompt], int]) -> None:
    """Asks each prompt several times; `asked` are the prompts and the samples of each."""
    from flows.steps import progress_bar

    rows, num_samples = asked
    write_shard(home, PROMPTS, rows)
    specs = {name: pack.spec([name]) for name in pack.policies}
    wanted = pa.table(
        {
            "prompt_id": [row.prompt_id for row in rows],
            "spec_id": [specs[row.categories[0]].id for row in rows],
        }
    )
    connection = connect(home)
    connection.register("wanted", wanted)
    engine = recipe.judging_engine
    work = GenerateWork(
        # The trial tests whether the pack can be followed, so the model must be shown it.
        config=recipe.generate.model_copy(
            update={"samples": num_samples, "context": "category", "refine": None}
        ),
        stage=recipe.stage,
        model=engine.version,
        specs={spec.id: spec for spec in specs.values()},
        rules=pack.rules,
        run_id="check",
    )
    pending = work.pending(connection)
    start_ray()
    pool = EnginePool(home=home)
    try:
        with progress_bar("ask", pending.num_units) as advance:
            Stage(work, pool, engine, home, recipe.stage).run(pending, advance)
    finally:
        pool.close()


def show_tried(tried: Tried, *, as_json: bool) -> None:
    """Prints what is open in a pack, each with the prompts that show it."""
    if as_json:
        terminal.as_json(asdict(tried))
        return
    for placed in tried.doubts:
        doubt = placed.doubt
        title = f"{placed.place}: {doubt.text} ({doubt.kind}, weight {doubt.weight:g}); "
        terminal.block(title + doubt.remedy, "\n".join(doubt.prompts))
    if tried.doubts:
        terminal.line("")
    if tried.unread:
        terminal.line(
            f"precept: samples that cannot be used: {_counted(tried.unread)}; prompts without any "
            f"other: {tried.num_unread}",
            err=True,
        )
    terminal.line(
        f"prompts: {tried.num_prompts}, samples of {tried.model}: {tried.num_samples}, findings: "
        f"{len(tried.doubts)}"
    )
