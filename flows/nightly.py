"""The refresh that a schedule starts: what changed, what it cost, and whether a person must look.

Whatever a judge that has drifted said is held: it is in no set of examples, and so nothing is
trained on it, until a person approves it here, in the Prefect UI, or with `precept approve`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput

from flows.recipe import Recipe
from flows.refresh import refresh
from flows.run import Refreshed, home_at, open_run
from flows.train import train
from warehouse.catalog import ask, connect
from warehouse.shards import Home, ShardError


class Approval(RunInput):
    """What a person is asked when a judge has drifted."""

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
    done = refresh(recipe, home)
    held = (done.figures.get("drift") or {}).get("alarm")
    changes = change_report(place, recipe, done, before)
    create_markdown_artifact(key="changes", markdown=changes)
    if held:
        emit_event(
            event="precept.drift",
            resource={"prefect.resource.id": f"precept.run.{done.run_id}"},
            payload={"recipe": recipe.name, "alarm": held},
        )
        if _is_approved(recipe, held):
            approve(done.run_id, home)
            done = refresh(recipe, home)
            held = None
    trained = False
    after = recipe.nightly.train_after
    if after and not held and done.num_examples >= before["trained_on"] + after:
        train(recipe, home)
        trained = True
    return Night(done, changes, held, trained)


def _is_approved(recipe: Recipe, alarm: str) -> bool:
    """Asks a person, where the run was started by a deployment and somebody can be asked."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.deployment_id is None:
        return False
    asked = Approval.with_initial_data(description=f"**The judge has drifted.** {alarm}.")
    try:
        answer = pause_flow_run(
            wait_for_input=asked, timeout=int(3600 * recipe.nightly.hours_to_approve)
        )
    except TimeoutError:
        return False
    return bool(answer and answer.approve)


@flow(name="approve", flow_run_name="approve {run_id}", persist_result=False, log_prints=False)
def approve(run_id: str, home: str | None = None) -> str:
    """Lets what a held refresh judged into the examples of the next refresh; says which it was."""
    place = home_at(home)
    held = connect(place).sql("SELECT run_id, recipe, alarm FROM held").fetchall()
    found = [row for row in held if row[0].startswith(run_id)]
    if len(found) != 1:
        known = ", ".join(row[0] for row in held) or "none"
        raise ShardError(f"no one held run has id {run_id!r}; held are {known}")
    [(whole_id, _, _)] = found
    [(resolved,)] = (
        connect(place)
        .execute("SELECT resolved_recipe FROM runs WHERE run_id = ?", [whole_id])
        .fetchall()
    )
    with open_run("approve", Recipe.model_validate_json(resolved), place) as run:
        run.note("approved", whole_id)
    return str(whole_id)


def _state(home: Home, recipe: Recipe) -> dict[str, Any]:
    """What the warehouse held of a recipe before: spec versions, and examples last trained on."""
    connection = connect(home)
    specs = connection.execute(
        "SELECT spec_ids FROM runs WHERE recipe = ? AND flow = 'refresh' "
        "AND generation_id IS NOT NULL ORDER BY started_at DESC LIMIT 1",
        [recipe.name],
    ).fetchall()
    trained = connection.execute(
        "SELECT max(num_rows) FROM checkpoints WHERE recipe = ? AND stage = 'sft'", [recipe.name]
    ).fetchall()
    return {"spec_ids": set(specs[0][0]) if specs else set(), "trained_on": trained[0][0] or 0}


def change_report(home: Home, recipe: Recipe, done: Refreshed, before: Mapping[str, Any]) -> str:
    """What a refresh changed, as Markdown: prompts, specs, rows by status, drift, tokens, hours."""
    connection = connect(home)
    figures = done.figures
    [(spec_ids, seconds, gpu_hours)] = connection.execute(
        "SELECT spec_ids, seconds, gpu_hours FROM runs WHERE run_id = ?", [done.run_id]
    ).fetchall()
    changed = set(spec_ids) - before["spec_ids"]
    categories = connection.execute(
        "SELECT array_to_string(categories, '+') FROM policies WHERE list_contains(?, spec_id) "
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
    lines += [f"- examples: {done.num_examples}", f"- {seconds:.0f} s, {gpu_hours:g} GPU-hours", ""]
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
