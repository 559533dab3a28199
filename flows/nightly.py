"""The refresh that a schedule starts: what changed, what it cost, and whether a person must look.

Whatever a judge that has drifted said is held: it is in no set of examples, and so nothing is
trained on it, until a person approves it here, in the Prefect UI, or with `precept approve`.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import duckdb
from prefect import flow
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
from flows.train import latest_training, train
from warehouse.catalog import ask, connect
from warehouse.home import Home, ShardError


class Approval(RunInput):
    """What a person is asked when a judge has drifted."""

    model_config: ClassVar[ConfigDict] = ConfigDict(use_attribute_docstrings=True)

    approve: bool = False
    """Take what was judged into the examples."""
    note: str = ""
    """Why, for the record."""


@dataclass(frozen=True, slots=True)
class Night:
    """What a nightly refresh came to."""

    refreshed: Refreshed
    changes: str
    """The change report, in Markdown."""
    held: str | None
    """Why what was judged is held; null where it is not."""
    trained: bool


@flow(name="nightly", flow_run_name="nightly {recipe.name}", persist_result=False, log_prints=False)
def nightly(recipe: Recipe, home: str | None = None) -> Night:
    """Refreshes, tells what changed, holds what drifted, and trains where enough is new."""
    place = home_at(home)
    before = _state(place, recipe)
    limit: Any = {"timeout_seconds": 3600 * recipe.nightly.hours}

    def ask(held: Refreshed) -> Approval | None:
        alarm = str(alarm_of(held))
        emit_event(
            event="precept.drift",
            resource={"prefect.resource.id": f"precept.run.{held.run_id}"},
            payload={"recipe": recipe.name, "alarm": alarm},
        )
        return _ask_person(recipe, alarm)

    def take(held: Refreshed, note: str) -> Refreshed:
        with suppress(ShardError):  # somebody else has approved it meanwhile
            approve(held.run_id, home, note=note)
        return refresh.with_options(**limit)(recipe, home)

    done = refresh.with_options(**limit)(recipe, home)
    changes = change_report(place, recipe, done, before)
    create_markdown_artifact(key="changes", markdown=changes)
    done = settle(done, ask, take)
    held = alarm_of(done)
    trained = False
    after = recipe.nightly.train_after
    if after and not held and done.num_examples >= before["trained_on"] + after:
        train.with_options(**limit)(recipe, home)
        trained = True
    return Night(done, changes, held, trained)


def alarm_of(done: Refreshed) -> str | None:
    """Why what a refresh judged is held; None where it is not."""
    alarm: str | None = (done.figures.get("drift") or {}).get("alarm")
    return alarm


def settle(
    done: Refreshed,
    ask: Callable[[Refreshed], Approval | None],
    take: Callable[[Refreshed, str], Refreshed],
) -> Refreshed:
    """The last refresh of a night: what is approved is taken in by another, which may be held too.

    `take` is given the reason of the person who approved.
    """
    while alarm_of(done):
        answer = ask(done)
        if answer is None or not answer.approve:
            break
        done = take(done, answer.note)
    return done


def _ask_person(recipe: Recipe, alarm: str) -> Approval | None:
    """Pauses until a person has answered in the Prefect UI; None where nobody can be asked or does.

    Somebody can be asked where a deployment started the run.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.deployment_id is None:
        return None
    asked = Approval.with_initial_data(description=f"**The judge has drifted.** {alarm}.")
    seconds = int(3600 * recipe.nightly.hours_to_approve)
    try:
        return pause_flow_run(wait_for_input=asked, timeout=seconds)
    except FlowPauseTimeout:
        return None


@flow(name="approve", flow_run_name="approve {run_id}", persist_result=False, log_prints=False)
def approve(run_id: str, home: str | None = None, *, note: str = "") -> str:
    """Lets what a held refresh judged into the examples of the next refresh; says which it was.

    `note` says why, for the record.
    """
    place = home_at(home)
    held = connect(place).sql("SELECT DISTINCT by_run FROM held ORDER BY 1").fetchall()
    found = [name for (name,) in held if name.startswith(run_id)]
    if len(found) != 1:
        known = ", ".join(name for (name,) in held) or "none"
        raise ShardError(f"no one held run has id {run_id!r}; held are {known}")
    [whole_id] = found
    [(resolved,)] = (
        connect(place)
        .execute("SELECT resolved_recipe FROM runs WHERE run_id = ?", [whole_id])
        .fetchall()
    )
    with open_run("approve", Recipe.model_validate_json(resolved), place) as run:
        run.figures["reason"] = note
        run.note("approved", whole_id)
    return str(whole_id)


def _state(home: Home, recipe: Recipe) -> dict[str, Any]:
    """What the warehouse held of a recipe before: spec versions, and examples when last trained."""
    connection = connect(home)
    specs = connection.execute(
        "SELECT spec_ids FROM runs WHERE recipe = ? AND flow = 'refresh' "
        "AND generation_id IS NOT NULL ORDER BY started_at DESC LIMIT 1",
        [recipe.name],
    ).fetchall()
    return {
        "spec_ids": set(specs[0][0]) if specs else set(),
        "trained_on": trained_on(connection, recipe),
    }


_TRAINED_ON = """
    WITH training AS (
        SELECT max(started_at) AS started_at
        FROM runs
        WHERE recipe = $recipe
            AND flow = 'train'
            AND status = 'completed'
            AND list_contains(json_extract_string(figures, '$.checkpoints.*'), $checkpoint_id)
    ),
    frozen AS (
        SELECT set_id
        FROM runs
        WHERE recipe = $recipe
            AND set_id IS NOT NULL
            AND started_at < (SELECT started_at FROM training)
        ORDER BY started_at DESC
        LIMIT 1
    )
    SELECT count(*) FROM examples SEMI JOIN frozen USING (set_id) WHERE status = 'chosen'
"""


def trained_on(connection: duckdb.DuckDBPyConnection, recipe: Recipe) -> int:
    """Examples that were there when the recipe, as it is now, was last trained; 0 where it never
    was.

    They are those that the refresh before that training chose: what SFT trains on, and what DPO
    and RL, which take pairs and prompts, are held against as well.
    """
    checkpoints = latest_training(connection, recipe)
    if not checkpoints:
        return 0
    asked = {"recipe": recipe.name, "checkpoint_id": checkpoints[-1]}
    [(count,)] = connection.execute(_TRAINED_ON, asked).fetchall()
    return int(count)


def change_report(home: Home, recipe: Recipe, done: Refreshed, before: Mapping[str, Any]) -> str:
    """What a refresh changed, as Markdown: prompts, specs, rows by status, drift, tokens, hours."""
    connection = connect(home)
    figures = done.figures
    price = recipe.gpu_hour_price
    [(spec_ids, seconds, gpu_hours)] = connection.execute(
        "SELECT spec_ids, seconds, gpu_hours FROM runs WHERE run_id = ?", [done.run_id]
    ).fetchall()
    changed = set(spec_ids) - before["spec_ids"]
    categories = connection.execute(
        "SELECT array_to_string(categories, '+') FROM specs WHERE list_contains(?, spec_id) "
        "ORDER BY 1",
        [sorted(changed)],
    ).fetchall()
    new = {name: counts["stored"] for name, counts in figures.get("collect", {}).items()}
    lines = [
        f"# What changed: {recipe.name}",
        "",
        f"- prompts new or said anew: {', '.join(f'{n} {c}' for n, c in new.items()) or 'none'}",
        f"- policies edited: {', '.join(row[0] for row in categories) or 'none'}"
        if before["spec_ids"]
        else f"- policies: {len(spec_ids)}, all new",
    ]
    for stage in ("generate", "judge"):
        made = figures.get(stage, {})
        statuses = ", ".join(f"{name} {count}" for name, count in made.get("statuses", {}).items())
        lines.append(
            f"- {stage}: {made.get('rows', 0)} rows ({statuses or 'nothing was missing'}), "
            f"{made.get('output_tokens', 0)} output tokens"
        )
    cost = "" if price is None else f", {gpu_hours * price:.2f} at {price:g} a GPU-hour"
    lines.append(f"- examples: {done.num_examples}")
    lines += [f"- {seconds:.0f} s, {gpu_hours:g} GPU-hours{cost}", ""]
    lines += ["| stage | rows | left behind |", "|--|--|--|"]
    lines += [
        f"| {row['stage']} | {row['num_rows']} | {row['left_behind']} |" for row in done.funnel
    ]
    drift = [row for row in ask(connection, "drift").to_pylist() if row["recipe"] == recipe.name]
    if drift:
        lines += ["", "| refresh | judged anew | acceptance | spread of scores | held |"]
        lines += ["|--|--|--|--|--|"]
        lines += [
            f"| {row['started_at']:%Y-%m-%d %H:%M} | {row['num_judged']} | {row['acceptance']} "
            f"| {row['spread'] if row['spread'] is not None else ''} | {row['alarm'] or ''} |"
            for row in drift[-8:]
        ]
    return "\n".join(lines)
