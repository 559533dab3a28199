"""The rows that a refresh would make, and their cost, without making or writing anything."""

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb

from flows.recipe import Recipe, require_own_versions
from flows.run import assign_work, document_work, home_at, plan_for
from specs.policy import Pack
from tasks.data.assign import AssignWork
from tasks.data.candidates import SourceNotes
from tasks.data.collect import collect
from tasks.data.collected import Collected, Origin
from tasks.data.conflicts import Conflicts
from tasks.data.generate import GenerateWork
from tasks.data.judge import JudgeWork
from tasks.engine.endpoint_config import Prices
from tasks.engine.requests import EngineConfig
from warehouse.catalog import connect, look_up, show_prompts_of
from warehouse.home import Home


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Rows that are missing, and the tokens and hours that such rows took before."""

    prompts: int
    """Prompts that the recipe wants, with those whose category is still to be chosen."""
    new_prompts: int
    left_behind: Mapping[str, int]
    """Rows of the sources that a refresh would leave behind, by reason."""
    conflicts: Conflicts
    """Prompts that rows label in different ways."""
    assignments: int
    """Prompts whose category the judge model is to choose. The counts below are those of the case
    that it finds one for each."""
    completions: int
    judgements: int
    """An upper bound, over all judges: a judge that races stops at the first score under the
    threshold, a completion that is not well formed is not judged, and completions that come to the
    same text are judged once."""
    output_tokens: int | None = None
    """None if the recipe never made such rows here."""
    hours: float | None = None
    gpu_hours: float | None = None
    cost: float | None = None
    """GPU-hours at the recipe's price; None if the recipe has no price."""
    endpoint_cost: float | None = None
    """Tokens at the prices of the endpoints; None if there are none, or it is not known."""
    endpoint_limit: float | None = None
    """Cost of the most output tokens at the prices of the endpoints, without the prompts; None if
    there are none."""
    documents: int = 0
    """Documents that `precept train` would have written before it trains. A refresh makes none, so
    their tokens and hours are not among the others."""
    student: str | None = None
    """Model that learns from the examples; None if it is the generator."""
    notes: Mapping[str, SourceNotes] = field(default_factory=dict)
    """By source and evaluation set, files that are skipped and places of bad rows, if any."""

    def as_markdown(self) -> str:
        """Returns the estimate as a list."""
        unknown = "not known yet: nothing of this recipe was made here before"
        hours = unknown if self.hours is None else f"{self.hours:.2g}"
        left = ", ".join(f"{count} {reason}" for reason, count in self.left_behind.items())
        at_most = ", at most" if self.assignments else ""
        return "\n".join(
            [
                f"- prompts wanted: {self.prompts}, of which new: {self.new_prompts}",
                f"- rows left behind: {left or 'none'}",
                *(f"- labelled in different ways: {name}" for name in self.conflicts.named),
                *([f"- categories to choose: {self.assignments}"] if self.assignments else []),
                f"- completions to generate{at_most}: {self.completions}",
                f"- judgements to make, at most: {self.judgements}",
                f"- output tokens: {unknown if self.output_tokens is None else self.output_tokens}",
                f"- hours of engines: {hours}",
                *([f"- GPU-hours: {self.gpu_hours:.2g}"] if self.gpu_hours else []),
                *([f"- cost: {self.cost:.2f}"] if self.cost is not None else []),
                *self._endpoint_lines(),
                *self._document_lines(),
                *([f"- student, which learns from them: {self.student}"] if self.student else []),
                *(f"- source {name}: {notes}" for name, notes in self.notes.items()),
            ]
        )

    def _document_lines(self) -> list[str]:
        if not self.documents:
            return []
        return [f"- documents that precept train writes first, not counted above: {self.documents}"]

    def _endpoint_lines(self) -> list[str]:
        """Returns what the endpoints cost, as far as it is known; nothing if they have no price."""
        if self.endpoint_limit is None:
            return []
        if self.endpoint_cost is not None:
            return [f"- cost of the endpoints: {self.endpoint_cost:.4g}"]
        limit = f"{self.endpoint_limit:.4g}, if every reply is as long as it may be"
        return [f"- cost of the endpoints, at most: {limit}; prompts come on top of it"]


@dataclass(frozen=True, slots=True)
class _Missing:
    """Rows that the stages would make."""

    assignments: int
    completions: int
    judgements: Mapping[str, int]
    """By the stage of each judge."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Tokens and seconds of some rows."""

    prompt_tokens: float = 0.0
    cached_tokens: float = 0.0
    output_tokens: float = 0.0
    seconds: float = 0.0

    def at(self, prices: Prices) -> float:
        """Returns the cost of the tokens."""
        prompt, cached = round(self.prompt_tokens), round(self.cached_tokens)
        return prices.cost(prompt=prompt, cached=cached, output=round(self.output_tokens))


def estimate(recipe: Recipe, home: str | None = None) -> Estimate:
    """Returns what `refresh` would make now. Raises what it would raise of a recipe or a source."""
    connection = connect(home_at(home))
    stored = {row["prompt_id"] for row in look_up(connection, "prompt_ids")}
    pack, assign = recipe.load_pack(), None
    if recipe.assigns:
        assign = assign_work(recipe, pack, model=recipe.judging_engine.version)
    collected = _collect(recipe, pack, connection, assign)
    num_to_judge = sum(filter(None, collected.traces["is_to_judge"].to_pylist()))
    missing = _count_missing(recipe, connection, assign, num_traces=num_to_judge)
    prompt_ids = collected.prompts["prompt_id"].to_pylist()
    # Prompts whose attempts at a category are used up are neither asked about nor wanted.
    num_given_up = collected.unassigned.num_rows - missing.assignments
    left_behind = Counter({"unread": num_given_up} if num_given_up else {})
    for counts in collected.counts.values():
        left_behind.update(counts.left_behind)
    return Estimate(
        prompts=len(prompt_ids) - num_given_up,
        new_prompts=sum(prompt_id not in stored for prompt_id in prompt_ids),
        left_behind=dict(left_behind.most_common()),
        conflicts=collected.conflicts,
        assignments=missing.assignments,
        completions=missing.completions,
        judgements=sum(missing.judgements.values()),
        documents=_count_documents(recipe, pack, connection),
        student=recipe.student.model if recipe.student else None,
        notes=collected.notes,
        **_price(connection, recipe, missing),
    )


@dataclass(frozen=True, slots=True)
class _StageToCome:
    """Rows that a stage would make, by which engine, and the longest output of each."""

    name: str
    num_rows: int
    engine: EngineConfig
    max_tokens: int

    @property
    def prices(self) -> Prices | None:
        """Prices of the endpoint, if the engine is one that has some."""
        return self.engine.endpoint.prices if self.engine.endpoint else None


def _price(
    connection: duckdb.DuckDBPyConnection, recipe: Recipe, missing: _Missing
) -> dict[str, Any]:
    """Returns what the missing rows take, by the fields of `Estimate`, as far as it is known."""
    judges, judge_tokens = list(recipe.judging_engines.values()), recipe.judge.sampling.max_tokens
    refine = recipe.generate.refine
    # A round is a critique and a revision.
    outputs = 1 + 2 * refine.rounds if refine else 1
    generate_tokens = outputs * recipe.generate.sampling.max_tokens
    stages = [
        _StageToCome("assign", missing.assignments, judges[0], judge_tokens),
        _StageToCome("generate", missing.completions, recipe.engine, generate_tokens),
        *(
            _StageToCome(name, num_rows, judge, judge_tokens)
            for (name, num_rows), judge in zip(missing.judgements.items(), judges, strict=True)
        ),
    ]
    priced = [(stage, stage.prices) for stage in stages if stage.prices]
    limits = [
        prices.cost(prompt=0, cached=0, output=stage.num_rows * stage.max_tokens)
        for stage, prices in priced
        if prices
    ]
    costs = {
        stage.name: cost_of(connection, recipe.name, stage.name, stage.num_rows) for stage in stages
    }
    known = {name: cost for name, cost in costs.items() if cost is not None}
    limit = sum(limits) if limits else None
    if len(known) < len(stages):
        return {"endpoint_limit": limit}
    gpu_hours = sum(known[stage.name].seconds * stage.engine.num_gpus for stage in stages) / 3600
    price = recipe.gpu_hour_price
    at_endpoints = [known[stage.name].at(prices) for stage, prices in priced if prices]
    return {
        "output_tokens": round(sum(cost.output_tokens for cost in known.values())),
        "hours": sum(cost.seconds for cost in known.values()) / 3600,
        "gpu_hours": gpu_hours,
        "cost": None if price is None else gpu_hours * price,
        "endpoint_cost": sum(at_endpoints) if at_endpoints else None,
        "endpoint_limit": limit,
    }


def _collect(
    recipe: Recipe, pack: Pack, connection: duckdb.DuckDBPyConnection, assign: AssignWork | None
) -> Collected:
    """Reads the sources as a refresh would, and shows the connection what it would want.

    What a refresh would store goes to a folder that is deleted again.
    """
    with tempfile.TemporaryDirectory() as folder:
        collected = collect(
            recipe.all_sources,
            config=recipe.collect,
            pack_categories=list(pack.policies),
            home=Home(folder),
            connection=connection,
            origin=Origin(assigning_id=assign.assigning_id if assign else None),
        )
        show_prompts_of(connection, Home(folder))
    plan = plan_for(pack, collected.prompts, collected.traces)
    connection.register("wanted", plan.wanted)
    connection.register("wanted_traces", plan.traces)
    connection.register("unassigned", collected.unassigned)
    return collected


def _count_missing(
    recipe: Recipe,
    connection: duckdb.DuckDBPyConnection,
    assign: AssignWork | None,
    *,
    num_traces: int,
) -> _Missing:
    """Returns the rows that the stages would find missing.

    Completions that are still to be made, and `num_traces` that are still to be stored, may each
    have a text of their own and lack all its judge samples, and prompts whose category is still to
    be chosen all their completions.
    """
    assignments = assign.pending(connection).num_units if assign else 0
    generate = GenerateWork(
        config=recipe.generate,
        stage=recipe.stage,
        model=recipe.engine.version,
        specs={},
        rules={},
        run_id="",
    )
    completions = generate.pending(connection).num_samples
    completions += assignments * recipe.generate.samples
    new = (completions + num_traces) * recipe.judge.samples
    judges = _judge_works(recipe, generate.generation_id)
    judgements = {work.name: work.pending(connection).num_samples + new for work in judges}
    return _Missing(assignments, completions, judgements)


def _count_documents(recipe: Recipe, pack: Pack, connection: duckdb.DuckDBPyConnection) -> int:
    """Returns the number of documents that a midtraining would find missing."""
    if recipe.midtrain is None:
        return 0
    work = document_work(recipe, recipe.midtrain, pack, model=recipe.engine.version)
    connection.register("wanted_documents", work.wanted)
    return work.pending(connection).num_samples


def _judge_works(recipe: Recipe, generation_id: str) -> list[JudgeWork]:
    """Returns the work of each judge; raises RecipeError if two are the same."""
    models = [engine.version for engine in recipe.judging_engines.values()]
    require_own_versions(models)
    return [
        JudgeWork(
            config=recipe.judge,
            stage=recipe.stage,
            model=model,
            jury=models if len(models) > 1 else (),
            generation_id=generation_id,
            num_completions=recipe.generate.samples,
            specs={},
            run_id="",
        )
        for model in models
    ]


def cost_of(
    connection: duckdb.DuckDBPyConnection, recipe: str, stage: str, num_rows: int
) -> Cost | None:
    """Returns what so many rows of a stage would take; None if the recipe never made such rows."""
    if not num_rows:
        return Cost()
    [paid] = look_up(connection, "paid", recipe=recipe, stage=stage)
    if not paid["num_rows"]:
        return None
    share = num_rows / paid["num_rows"]
    return Cost(**{name: share * paid[name] for name in Cost.__dataclass_fields__})
