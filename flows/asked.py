"""The prompt of a row: what its model was asked, made again and held against the row's ids."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import duckdb
from pydantic import ValidationError

from flows import terminal
from flows.recipe import Recipe
from specs.policy import PackError, Spec
from tasks.data.remake import completion_request, judgement_request
from tasks.engine.faults import first_line
from tasks.engine.remade import Check, Remade, RemakeError, Rendered, render, require_spec
from tasks.engine.requests import EngineConfig
from tasks.evaluation.remake import Ground, answer_again, evaluate_configs, grade_again
from warehouse.catalog import find_checkpoints, look_up
from warehouse.characters import one_line
from warehouse.home import Home
from warehouse.models import fetch_folder
from warehouse.rows import NOUNS, FoundRow

_KINDS = ("completions", "judgements", "answers", "evaluations")
"""Tables whose rows a model was asked for, and recorded how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The prompt that a model was given for a row."""

    messages: Sequence[Mapping[str, Any]]
    """Before the model's chat template."""
    text: str | None
    """As the model read it, byte for byte; None if its tokenizer is not at hand."""
    checks: tuple[Check, ...]
    """The ids that prove it."""
    note: str | None
    """The reason for a missing text, or the comparison of its tokens."""


def asked_of(connection: duckdb.DuckDBPyConnection, home: Home, found: FoundRow) -> Asked:
    """Returns what the model was asked for a row; raises RemakeError if that cannot be made
    again."""
    if found.kind not in _KINDS:
        kinds = ", ".join(NOUNS[kind] for kind in _KINDS)
        raise RemakeError(
            f"a {NOUNS[found.kind]} has no prompt that can be made again; give the id of one of: "
            f"{kinds}"
        )
    recipe = _recipe_of(connection, found.row["run_id"])
    remade = _remade(connection, found, recipe)
    # The warehouse gives null for a key that a message does not have.
    messages = [
        {key: value for key, value in turn.items() if value is not None}
        for turn in remade.request.messages
    ]
    try:
        rendered = render(remade.request, _engine_of(connection, home, found, recipe))
    except RemakeError as error:
        return Asked(messages=messages, text=None, checks=remade.checks, note=str(error))
    return Asked(
        messages=messages,
        text=rendered.text,
        checks=remade.checks,
        note=_OF_DRAFT if remade.is_draft else _tokens_note(found.row, rendered),
    )


_OF_DRAFT = (
    "this asked for the draft, which was then criticised and revised; the tokens of the row are "
    "those of all of it"
)


def print_asked(asked: Asked, found: FoundRow, *, as_json: bool) -> None:
    """Prints a prompt: as it is into a file or a pipe, and on a terminal with visible controls.

    What proves it goes to stderr, so that stdout is the prompt alone.
    """
    if as_json:
        terminal.as_json(asdict(asked))
        return
    terminal.lines(
        f"prompt of {NOUNS[found.kind]} {found.row_id}",
        *(f"  {one.name} {one.value}: made again of {one.of}" for one in asked.checks),
        err=True,
    )
    if asked.note:
        terminal.line(f"  {one_line(asked.note)}", err=True)
    text = asked.text
    terminal.exactly(
        json.dumps(asked.messages, ensure_ascii=False, indent=2) if text is None else text
    )


def _recipe_of(connection: duckdb.DuckDBPyConnection, run_id: str) -> dict[str, Any]:
    """Returns the recipe of a run, as it was resolved."""
    rows = look_up(connection, "resolved_recipe", run_id=run_id)
    if not rows:
        raise RemakeError(f"the prompt cannot be made again: run {run_id} is not recorded")
    recipe: dict[str, Any] = json.loads(rows[0]["resolved_recipe"])
    return recipe


def _remade(
    connection: duckdb.DuckDBPyConnection, found: FoundRow, recipe: Mapping[str, Any]
) -> Remade:
    row = found.row
    if found.kind in ("completions", "judgements") and row["spec_id"] is None:
        raise RemakeError("no model of Precept's was asked: the row came with a trace")
    if found.kind == "completions":
        return completion_request(
            row,
            prompt=_one(found, "prompt", row["prompt_id"]),
            spec=_spec(connection, row["spec_id"]),
            settings=recipe.get("generate", {}),
        )
    if found.kind == "judgements":
        prompts = look_up(connection, "prompt_revisions", prompt_id=row["prompt_id"])
        if not prompts:
            raise RemakeError(f"prompt {row['prompt_id']} is not in the warehouse")
        return judgement_request(
            row,
            completion=_one(found, "completion", f"of text {row['text_id']}"),
            prompts=prompts,
            spec=_spec(connection, row["spec_id"]),
            settings=recipe.get("judge", {}),
        )
    ground = _ground(connection, row, recipe)
    if found.kind == "answers":
        return answer_again(row, case=_one(found, "case", row["case_id"]), ground=ground)
    answer = _one(found, "answer", row["answer_id"])
    return grade_again(
        row, answer=answer, case=_one(found, "case", answer["case_id"]), ground=ground
    )


def _one(found: FoundRow, name: str, row_id: str) -> Mapping[str, Any]:
    rows = found.related.get(name, [])
    if not rows:
        raise RemakeError(
            f"the prompt cannot be made again: {name} {row_id} is not in the warehouse"
        )
    return rows[0]


def _spec(connection: duckdb.DuckDBPyConnection, spec_id: str) -> Spec:
    return require_spec(spec_id, _texts(connection, spec_id).get(spec_id))


def _texts(connection: duckdb.DuckDBPyConnection, spec_id: str | None) -> dict[str, str]:
    """Returns the text of a stored spec by its id; nothing without one."""
    rows = look_up(connection, "spec_texts", spec_ids=[spec_id] if spec_id else [])
    return {row["spec_id"]: row["text"] for row in rows}


def _ground(
    connection: duckdb.DuckDBPyConnection, row: Mapping[str, Any], recipe: Mapping[str, Any]
) -> Ground:
    """Returns what the answers and grades of a run were made with."""
    try:
        whole = Recipe.model_validate(recipe)
        pack = whole.load_pack()
    except (ValidationError, PackError) as error:
        raise RemakeError(
            f"the prompt cannot be made again: the recipe or the pack of its run is not at hand "
            f"({_fault(error)})"
        ) from error
    return Ground(
        configs=evaluate_configs(recipe),
        pack=pack,
        pack_folder=whole.pack_folder,
        generator_templates=whole.generate.template,
        judge_templates=whole.judge.template,
        specs=_texts(connection, row["spec_id"]),
        refines=[arm.refine for arm in whole.ablate.arms if arm.refine] if whole.ablate else [],
    )


def _fault(error: ValidationError | PackError) -> str:
    """Returns the first fault of a recipe or a pack."""
    return error.errors()[0]["msg"] if isinstance(error, ValidationError) else first_line(error)


def _engine_of(
    connection: duckdb.DuckDBPyConnection,
    home: Home,
    found: FoundRow,
    recipe: Mapping[str, Any],
) -> EngineConfig:
    """Returns the engine of the recipe that served a row's model.

    Raises RemakeError if none of its models is the one that the row names.
    """
    row, engines = found.row, _engines(recipe)
    if row.get("checkpoint_id"):
        checkpoints = find_checkpoints(connection, [row["checkpoint_id"]])
        if not checkpoints:
            raise RemakeError(f"checkpoint {row['checkpoint_id']} is not in the warehouse")
        [checkpoint] = checkpoints
        base = engines.get("student") or engines.get("engine")
        if base is None:
            raise RemakeError(f"the recipe of run {row['run_id']} names no engine")
        try:
            return base.with_model(str(fetch_folder(home, checkpoint.path)))
        except OSError as error:
            raise RemakeError(f"the model of the checkpoint is not at hand: {error}") from error
    for engine in engines.values():
        if engine.version == row["model"]:
            return engine
    now = ", ".join(engine.version for engine in engines.values()) or "not named"
    raise RemakeError(
        f"the tokenizer of {row['model']} is not at hand (the models of the recipe are now {now}), "
        "so these are the messages before its chat template"
    )


def _engines(recipe: Mapping[str, Any]) -> dict[str, EngineConfig]:
    """Returns the engines of a recipe by the names of their sections.

    Raises RemakeError if another version of Precept wrote one of them.
    """
    named = {name: recipe.get(name) for name in ("engine", "judge_engine", "student")}
    juries = {f"judge_engines.{n}": one for n, one in enumerate(recipe.get("judge_engines", ()))}
    try:
        return {
            name: EngineConfig.model_validate(one)
            for name, one in {**named, **juries}.items()
            if one
        }
    except ValidationError as error:
        raise RemakeError(
            f"this Precept does not read an engine of the run's recipe ({_fault(error)})"
        ) from error


def _tokens_note(row: Mapping[str, Any], rendered: Rendered) -> str | None:
    """Returns how the tokens of the prompt compare with those that the engine counted."""
    counted = row.get("num_prompt_tokens")
    if rendered.num_tokens is None or counted is None:
        return None
    if counted == rendered.num_tokens:
        return f"{counted} tokens, as many as the engine counted"
    return (
        f"{rendered.num_tokens} tokens, and the engine counted {counted}: the chat template or the "
        "tokenizer is another than then"
    )
