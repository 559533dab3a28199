"""Exports as folders, whole or not at all: rows or weights, card, recipe and figures."""

import json
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from warehouse.catalog import look_up, open_catalog
from warehouse.exports.card import (
    check_languages,
    check_license,
    checkpoint_card,
    dataset_card,
)
from warehouse.exports.dataset import (
    DatasetOptions,
    ExportedRows,
    ExportError,
    export_rows,
    reasoning_of,
)
from warehouse.exports.figures import FILE, Figures, figures_of_checkpoint, figures_of_dataset
from warehouse.exports.recipe_file import recipe_file, shown_paths, without_secrets
from warehouse.files import OutputError
from warehouse.home import Home
from warehouse.lineage import STAGE_TITLES
from warehouse.tables import Checkpoint

CARD = "README.md"
_NOT_OF_THE_MODEL = ("stage.json", "training_args.bin")
"""Files of a checkpoint that only the warehouse reads, and the trainer's own, a pickle with paths
of the machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """Statements of the user who exports, which no query knows."""

    command: str
    """The command that exports."""
    license: str | None = None
    """Unset: the recipe's, or none was given."""
    languages: Sequence[str] = ()
    """Empty: of a data set, those that its prompts have; of a checkpoint, none is told."""
    title: str | None = None
    """Unset: told by the recipe's name."""
    folders: Sequence[tuple[str, str]] = ()
    """Beginnings of paths, each with what it is shown as."""
    replace: bool = False
    """Replace an export that is there."""

    def shown(self, text: str) -> str:
        """Returns a text without secrets and private beginnings of paths."""
        return shown_paths(without_secrets(text), self.folders)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The command that serves a checkpoint, and the model that it began from."""

    arguments: Sequence[str]
    """Arguments of `vllm serve` after the folder."""
    parser: str | None
    """vLLM's reasoning parser. None: no parser takes the model's replies apart."""
    marks: tuple[str, str]
    """The marks around the reasoning."""
    base_model: str | None
    """Id on the Hub of the model that the first training began from. None: it has none that is
    known."""

    def command(self, folder: str) -> str:
        """Returns the command that serves the model from a folder."""
        return shlex.join(["vllm", "serve", folder, *self.arguments])


def export_dataset(
    home: Home,
    path: str,
    options: DatasetOptions,
    publisher: Publisher,
) -> ExportedRows:
    """Writes a data set into a new folder; returns its configurations.

    Raises OutputError or ExportError if it cannot be written, or not as it was asked for.
    """
    # Not one that others share: the export limits the memory of its database.
    connection = open_catalog(home).connection
    license = check_license(publisher.license)
    languages = check_languages(publisher.languages)
    with whole_folder(path, replace=publisher.replace) as folder:
        exported = export_rows(connection, folder, options)
        files = _write_recipes(connection, folder, exported.recipes, publisher)
        figures = figures_of_dataset(connection).shown(publisher.shown)
        given = {
            "title": publisher.title
            or f"{', '.join(exported.recipes)}: deliberations over policies",
            "folder": Path(path).resolve().name,
            "license": license or _license_of(figures),
            "languages": languages,
            "command": publisher.shown(publisher.command),
            "recipe_files": {publisher.shown(name): file for name, file in files.items()},
        }
        reasoning = reasoning_of(options)
        card = dataset_card(figures, exported, form=options.form, reasoning=reasoning, given=given)
        _write_pages(folder, card, figures, kind="dataset")
    return exported


def export_checkpoint(
    connection: duckdb.DuckDBPyConnection,
    path: str,
    checkpoint: Checkpoint,
    model: Path,
    *,
    served: Served,
    publisher: Publisher,
) -> Figures:
    """Writes a checkpoint, whose model lies in a folder, into a new folder; returns its figures."""
    given_license = check_license(publisher.license)
    languages = check_languages(publisher.languages)
    with whole_folder(path, replace=publisher.replace) as folder:
        for file in sorted(model.iterdir()):
            if file.is_file() and file.name not in (*_NOT_OF_THE_MODEL, CARD, FILE):
                # Without its mode: weights are often their owner's alone.
                shutil.copyfile(file, folder / file.name)
        figures = figures_of_checkpoint(connection, checkpoint.checkpoint_id).shown(publisher.shown)
        resolved = resolved_recipe(connection, checkpoint)
        text = recipe_file(resolved, name=checkpoint.recipe, folders=publisher.folders)
        (folder / "recipe.toml").write_text(text, encoding="utf-8")
        given = {
            "title": publisher.title
            or f"{checkpoint.recipe} {STAGE_TITLES[checkpoint.stage]} "
            f"{checkpoint.checkpoint_id[:12]}",
            "license": given_license,
            "languages": languages,
            "command": publisher.shown(publisher.command),
            "recipe_file": "recipe.toml",
            "base_model": served.base_model,
            "serve": publisher.shown(served.command(Path(path).resolve().name)),
            "parser": served.parser,
            "marks": list(served.marks),
        }
        _write_pages(folder, checkpoint_card(figures, given=given), figures, kind="checkpoint")
    return figures


def resolved_recipe(connection: duckdb.DuckDBPyConnection, checkpoint: Checkpoint) -> str:
    """Returns as JSON the recipe that trained a checkpoint; raises ExportError if no run of the
    warehouse has it."""
    records = look_up(connection, "resolved_recipe", run_id=checkpoint.run_id)
    if not records:
        raise ExportError(
            f"run {checkpoint.run_id}, which trained checkpoint {checkpoint.checkpoint_id}, is not "
            "recorded, so nobody knows the recipe to export with it; train the model again"
        )
    return str(records[0]["resolved_recipe"])


def _license_of(figures: Figures) -> str | None:
    """Returns the licence that the recipes name; raises ExportError if they name several."""
    named = {row["license"] for row in figures.rows["settings"]} - {None}
    if len(named) > 1:
        raise ExportError(
            f"the recipes name {len(named)} licences: {', '.join(sorted(named))}; give --license "
            "the one of this data set"
        )
    return check_license(next(iter(named), None))


def _write_recipes(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    recipes: Sequence[str],
    publisher: Publisher,
) -> Mapping[str, str]:
    """Writes the latest resolved recipe of each name; returns the names of the files."""
    files: dict[str, str] = {}
    for row in look_up(connection, "planned_recipes"):
        name = row["recipe"]
        number = recipes.index(name)
        file = "recipe.toml" if len(recipes) == 1 else f"recipe_{number + 1}.toml"
        text = recipe_file(row["resolved_recipe"], name=name, folders=publisher.folders)
        (folder / file).write_text(text, encoding="utf-8")
        files[name] = file
    return files


def _write_pages(folder: Path, card: str, figures: Figures, *, kind: str) -> None:
    (folder / CARD).write_text(card, encoding="utf-8", newline="")
    (folder / FILE).write_text(figures.as_json(kind), encoding="utf-8", newline="")


@contextmanager
def whole_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yields a folder to write into, which gets the name `path` when the block ends.

    An earlier export stays until then, and stays if the block raises. Raises OutputError, before or
    after the block, if there is something of that name that is no export or that `replace` does not
    allow to be replaced.
    """
    if "://" in str(path):
        raise OutputError(f"{path} is an address; give a folder of this machine, and copy it there")
    # Of a link, what it leads to is replaced.
    place = Path(path).resolve()
    _require_free(path, place, replace=replace)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        # Beside the place, so that a whole folder is one rename away from it.
        work = Path(tempfile.mkdtemp(dir=place.parent, prefix=".export-"))
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        folder = work / "new"
        folder.mkdir()
        yield folder
        # Another may have taken the name meanwhile.
        _require_free(path, place, replace=replace)
        try:
            _publish(folder, place, replace=replace)
        except OSError as error:
            raise _unwritable(path, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _require_free(path: str | Path, place: Path, *, replace: bool) -> None:
    """Raises OutputError if a folder must not take a place."""
    if not place.exists():
        return
    if not replace:
        raise OutputError(
            f"{path} is there already; give another name, or --force to replace an export"
        )
    try:
        kind_of(place)
    except ExportError as error:
        raise OutputError(
            f"{path} is no export of Precept's, so that --force does not replace it; give another "
            "name"
        ) from error


def _publish(folder: Path, place: Path, *, replace: bool) -> None:
    """Gives a folder its place; what it replaces comes back if that fails."""
    before = folder.with_name("before")
    if replace and place.exists():
        place.rename(before)
    try:
        folder.rename(place)
    finally:
        if before.exists() and not place.exists():
            before.rename(place)


def _unwritable(path: str | Path, error: OSError) -> OutputError:
    return OutputError(f"{path} cannot be written ({error.strerror}); give another folder")


def kind_of(folder: str | Path) -> str:
    """Returns `dataset` or `checkpoint`; raises ExportError if a folder is no export."""
    path = Path(folder)
    if not path.is_dir():
        raise ExportError(f"there is no folder {folder}; export one first, see precept export")
    try:
        kind: Any = json.loads((path / FILE).read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        kind = None
    if kind not in ("dataset", "checkpoint") or not (path / CARD).is_file():
        raise ExportError(
            f"{folder} is no export of Precept's: it has no {FILE} with a card beside it; write "
            "one with precept export dataset or precept export checkpoint"
        )
    return str(kind)
