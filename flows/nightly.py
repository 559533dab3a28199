"""The refresh that a schedule starts: what changed, what it cost, and whether a person must look.

Judgements of a judge that has drifted are held: they are in no set of examples, and so nothing is
trained on them, until a person approves them here, in the Prefect UI, or with `precept approve`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import duckdb
from prefect import Flow, flow
from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from pydantic import ConfigDict

from flows.recipe import Recipe
from flows.refresh import refresh
from flows.run import Refreshed, home_at, open_run
from flows.time_limit import told_as_timeout
from flows.train import latest_training, train
from tasks.stage import StageFigures
from warehouse.catalog import ask, connect, look_up
from warehouse.characters import one_line
from warehouse.home import Home


class HeldError(ValueError):
    """No held run, or several, for an id."""


class Approval(RunInput):
    """The answer of a person to a judge that has drifted."""

    model_config: ClassVar[ConfigDict] = ConfigDict(use_attribute_docstrings=True)

    approve: bool = False
    """Take the held judgements into the examples."""
    note: str = ""
    """The reason, for the record."""


@dataclass(frozen=True, slots=True)
class Night:
    """The outcome of a nightly refresh."""

    refreshed: Refreshed
    changes: str
    """The change report, in Markdown."""
    held: str | None
    """The reason for which the judgements are held; None if they are not."""
    trained: bool


@flow(name="nightly", flow_run_name="nightly {recipe.name}", persist_result=False, log_prints=False)
def nightly(recipe: Recipe, home: str | None = None) -> Night:
    """Refreshes, reports what changed, holds a judge that drifts, and trains if enough is new."""
    place = home_at(home)
    before = _look_before(place, recipe)
    hours = recipe.nightly.hours

    def in_time(work: Flow[..., Any]) -> Any:
        with told_as_timeout(hours):
            return work.with_options(timeout_seconds=3600 * hours)(recipe, home)

    def ask_about(held: Refreshed) -> Approval | None:
        alarm = str(alarm_of(held))
        emit_event(
            event="precept.drift",
            resource={"prefect.resource.id": f"precept.run.{held.run_id}"},
            payload={"recipe": recipe.name, "alarm": alarm},
        )
        return _ask_person(recipe, alarm)

    def take(held: Refreshed, note: str) -> Refreshed:
        with suppress(HeldError):  # another person approved it meanwhile
            approve(held.run_id, home, note=note)
        again: Refreshed = in_time(refresh)
        return again

    done = in_time(refresh)
    changes = change_report(place, recipe, done, before)
    create_markdown_artifact(key="changes", markdown=changes)
    done = settle(done, ask_about, take)
    held = alarm_of(done)
    trained = False
    after = recipe.nightly.train_after
    if after and not held and done.num_examples >= before.trained_on + after:
        in_time(train)
        trained = True
    return Night(done, changes, held, trained)


def alarm_of(done: Refreshed) -> str | None:
    """Returns why the judgements of a refresh are held; None if they are not."""
    drift = done.figures.drift
    return drift.alarm if drift else None


def settle(
    done: Refreshed,
    ask: Callable[[Refreshed], Approval | None],
    take: Callable[[Refreshed, str], Refreshed],
) -> Refreshed:
    """Returns the last refresh of a night.

    Approved judgements are taken in by another refresh, which may be held too. `take` is given the
    reason of the person who approved.
    """
    while alarm_of(done):
        answer = ask(done)
        if answer is None or not answer.approve:
            break
        done = take(done, answer.note)
    return done


def _ask_person(recipe: Recipe, alarm: str) -> Approval | None:
    """Pauses until a person has answered in the Prefect UI; returns None if nobody does.

    Nobody can be asked unless a deployment started the run.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.deployment_id is None:
        return None
    form = Approval.with_initial_data(description=f"**The judge has drifted.** {alarm}.")
    seconds = int(3600 * recipe.nightly.hours_to_approve)
    try:
        return pause_flow_run(wait_for_input=form, timeout=seconds)
    except FlowPauseTimeout:
        return None


@flow(name="approve", flow_run_name="approve {run_id}", persist_result=False, log_prints=False)
def approve(run_id: str, home: str | None = None, *, note: str = "") -> str:
    """Lets the judgements of a held refresh into the examples of the next one.

    The start of the run's id is enough; returns the whole id. `note` is the reason, for the
    record. Raises HeldError if no held run, or more than one, has an id that starts so.
    """
    place = home_at(home)
    connection = connect(place)
    held = [row["by_run"] for row in look_up(connection, "held_runs")]
    matching = [name for name in held if name.startswith(run_id)]
    if len(matching) != 1:
        number = "several held runs have ids that start" if matching else "no held run has an id"
        listed = ", ".join(matching or held) or "none"
        raise HeldError(f"{number} with {run_id!r}; held are {listed}")
    [whole_id] = matching
    [row] = look_up(connection, "resolved_recipe", run_id=whole_id)
    with open_run("approve", Recipe.model_validate_json(row["resolved_recipe"]), place) as run:
        run.note(approved=whole_id, reason=note)
    return str(whole_id)


def recipe_of(home: Home, run_id: str) -> str:
    """Returns the name of the recipe of a run."""
    [row] = look_up(connect(home), "runs_by_id", run_id=run_id)
    return str(row["recipe"])


@dataclass(frozen=True, slots=True)
class Before:
    """The warehouse's view of a recipe before a night."""

    spec_ids: frozenset[str]
    """Specs that the latest refresh wanted; empty if there was none."""
    trained_on: int
    """Examples when the recipe was last trained."""


def _look_before(home: Home, recipe: Recipe) -> Before:
    connection = connect(home)
    rows = look_up(connection, "latest_spec_ids", recipe=recipe.name)
    spec_ids = frozenset(rows[0]["spec_ids"]) if rows else frozenset()
    return Before(spec_ids, trained_on(connection, recipe))


def trained_on(connection: duckdb.DuckDBPyConnection, recipe: Recipe) -> int:
    """Returns the number of examples when the recipe, as it is now, was last trained; 0 if never.

    They are those that the refresh before that training chose: SFT trains on them, and DPO and
    RL, which take pairs and prompts, are compared by them as well.
    """
    checkpoints = latest_training(connection, recipe)
    if not checkpoints:
        return 0
    # The last of them: an ablation may have trained the first ones since, on their own.
    [row] = look_up(connection, "trained_on", recipe=recipe.name, checkpoint_id=checkpoints[-1])
    return int(row["num_examples"])


def change_report(home: Home, recipe: Recipe, done: Refreshed, before: Before) -> str:
    """Returns what a refresh changed, as Markdown: prompts, specs, rows by status, drift, cost."""
    connection = connect(home)
    [cost] = look_up(connection, "run_cost", run_id=done.run_id)
    changed = sorted(set(cost["spec_ids"]) - before.spec_ids)
    edited = [row["spec_key"] for row in look_up(connection, "spec_keys", spec_ids=changed)]
    new = [f"{name} {counts.stored}" for name, counts in done.figures.sources.items()]
    price, gpu_hours = recipe.gpu_hour_price, cost["gpu_hours"]
    paid = "" if price is None else f", {gpu_hours * price:.2f} at {price:g} a GPU-hour"
    drift = [row for row in ask(connection, "drift").to_pylist() if row["recipe"] == recipe.name]
    return "\n".join(
        [
            f"# What changed: {recipe.name}",
            "",
            f"- new or relabelled prompts: {', '.join(new) or 'none'}",
            f"- policies edited: {', '.join(edited) or 'none'}"
            if before.spec_ids
            else f"- policies: {len(cost['spec_ids'])}, all new",
            *(_stage_line(name, done) for name in ("generate", *done.figures.judge_stages)),
            *(
                f"- {judge} could not be asked: {one_line(fault)}"
                for judge, fault in done.figures.silent_judges.items()
            ),
            f"- examples: {done.num_examples}",
            *([f"- {done.shortfall}"] if done.shortfall else []),
            f"- {cost['seconds']:.0f} s, {gpu_hours:g} GPU-hours{paid}",
            "",
            "| stage | rows | left behind |",
            "|--|--|--|",
            *(
                f"| {row['stage']} | {row['num_rows']} | {row['left_behind']} |"
                for row in done.funnel
            ),
            *_drift_lines(drift[-8:]),
        ]
    )


def _stage_line(name: str, done: Refreshed) -> str:
    """Returns what a stage made, as an item of a list."""
    figures = done.figures.stages.get(name, StageFigures())
    statuses = ", ".join(f"{status} {count}" for status, count in figures.statuses.items())
    return (
        f"- {name}: {figures.num_rows} rows ({statuses or 'nothing was missing'}), "
        f"{figures.usage.output_tokens} output tokens"
    )


def _drift_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns rows of question `drift` as a table."""
    if not rows:
        return []
    return [
        "",
        "| refresh | judge | judged anew | acceptance | spread of scores | held |",
        "|--|--|--|--|--|--|",
        *(
            f"| {row['started_at']:%Y-%m-%d %H:%M} | {row['judge'] or ''} | {row['num_judged']} "
            f"| {row['acceptance']} "
            f"| {row['spread'] if row['spread'] is not None else ''} | {row['alarm'] or ''} |"
            for row in rows
        ),
    ]
