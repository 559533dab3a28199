"""The rows that a refresh would make, and their cost, without making or writing anything."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field

import duckdb

from flows.recipe import Recipe
from flows.run import home_at, plan_for
from tasks.data.candidates import SourceNotes
from tasks.data.collect import Collected, collect
from tasks.data.generate import GenerateWork
from tasks.data.judge import JudgeWork
from warehouse.catalog import connect, look_up, show_prompts_of
from warehouse.home import Home


@dataclass(frozen=True, slots=True)
class Estimate:
    """Rows that are missing, and the tokens and hours that such rows took before."""

    prompts: int
    """Prompts that the recipe wants."""
    new_prompts: int
    completions: int
    """Samples to generate, without those of prompts whose category is still to be chosen."""
    judgements: int
    """An upper bound: a judge that races stops at the first score under the threshold, and a
    completion that is not well formed is not judged."""
    output_tokens: int | None
    """None if the recipe never made such rows here."""
    hours: float | None
    gpu_hours: float | None
    cost: float | None
    """GPU-hours at the recipe's price; None if the recipe has no price."""
    notes: Mapping[str, SourceNotes] = field(default_factory=dict)
    """By source and evaluation set, files that are skipped and places of bad rows, if any."""

    def as_markdown(self) -> str:
        """Returns the estimate as a list."""
        unknown = "not known yet: nothing of this recipe was made here before"
        hours = unknown if self.hours is None else f"{self.hours:.2g}"
        return "\n".join(
            [
                f"- prompts wanted: {self.prompts}, of which new: {self.new_prompts}",
                f"- completions to generate: {self.completions}",
                f"- judgements to make, at most: {self.judgements}",
                f"- output tokens: {unknown if self.output_tokens is None else self.output_tokens}",
                f"- hours of engines: {hours}",
                *([f"- GPU-hours: {self.gpu_hours:.2g}"] if self.gpu_hours else []),
                *([f"- cost: {self.cost:.2f}"] if self.cost is not None else []),
                *(f"- source {name}: {notes}" for name, notes in self.notes.items()),
            ]
        )


@dataclass(frozen=True, slots=True)
class _Cost:
    """Output tokens and seconds of some rows."""

    output_tokens: float
    seconds: float


def estimate(recipe: Recipe, home: str | None = None) -> Estimate:
    """Returns what `refresh` would make now. Raises what it would raise of a recipe or a source."""
    connection = connect(home_at(home))
    stored = {row["prompt_id"] for row in look_up(connection, "prompt_ids")}
    collected = _collect(recipe, connection)
    wanted, notes = collected.prompts["prompt_id"].to_pylist(), collected.notes
    completions, judgements = _count_missing(recipe, connection)
    costs = (
        _cost(connection, recipe, "generate", completions),
        _cost(connection, recipe, "judge", judgements),
    )
    num_new = sum(prompt_id not in stored for prompt_id in wanted)
    if costs[0] is None or costs[1] is None:
        unknown = (None, None, None, None)
        return Estimate(len(wanted), num_new, completions, judgements, *unknown, notes)
    gpus = (recipe.engine.num_gpus, recipe.judging_engine.num_gpus)
    gpu_hours = (costs[0].seconds * gpus[0] + costs[1].seconds * gpus[1]) / 3600
    price = recipe.gpu_hour_price
    return Estimate(
        prompts=len(wanted),
        new_prompts=num_new,
        completions=completions,
        judgements=judgements,
        output_tokens=round(costs[0].output_tokens + costs[1].output_tokens),
        hours=(costs[0].seconds + costs[1].seconds) / 3600,
        gpu_hours=gpu_hours,
        cost=None if price is None else gpu_hours * price,
        notes=notes,
    )


def _collect(recipe: Recipe, connection: duckdb.DuckDBPyConnection) -> Collected:
    """Reads the sources as a refresh would, and shows the connection what it would want.

    What a refresh would store goes to a folder that is deleted again.
    """
    pack = recipe.load_pack()
    with tempfile.TemporaryDirectory() as folder:
        collected = collect(
            recipe.sources,
            config=recipe.collect,
            pack_categories=list(pack.policies),
            home=Home(folder),
            connection=connection,
        )
        show_prompts_of(connection, Home(folder))
    connection.register("wanted", plan_for(pack, collected.prompts).wanted)
    return collected


def _count_missing(recipe: Recipe, connection: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """Returns the completions and judgements that the stages would find missing.

    Completions that are still to be made will lack all their judge samples.
    """
    generate = GenerateWork(
        config=recipe.generate,
        stage=recipe.stage,
        model=recipe.engine.version,
        specs={},
        all_rule_ids=(),
        run_id="",
    )
    judge = JudgeWork(
        config=recipe.judge,
        stage=recipe.stage,
        model=recipe.judging_engine.version,
        generation_id=generate.generation_id,
        num_completions=recipe.generate.samples,
        specs={},
        run_id="",
    )
    completions = generate.pending(connection).num_samples
    judgements = judge.pending(connection).num_samples
    return completions, judgements + completions * recipe.judge.samples


def _cost(
    connection: duckdb.DuckDBPyConnection, recipe: Recipe, stage: str, num_rows: int
) -> _Cost | None:
    """Returns what so many rows of a stage would take; None if the recipe never made such rows."""
    if not num_rows:
        return _Cost(0.0, 0.0)
    [paid] = look_up(connection, "paid", recipe=recipe.name, stage=stage)
    if not paid["num_rows"]:
        return None
    share = num_rows / paid["num_rows"]
    return _Cost(share * paid["output_tokens"], share * paid["seconds"])
