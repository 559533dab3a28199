"""The command that serves a checkpoint without Precept, from the recipe that trained it."""

import json
from pathlib import Path

import duckdb
from pydantic import ValidationError

from tasks.engine.model_files import read_vocabulary
from tasks.engine.requests import EngineConfig
from tasks.engine.serving import serving_of
from warehouse.exports.dataset import ExportError
from warehouse.exports.folders import Served, resolved_recipe
from warehouse.lineage import lineage_of
from warehouse.tables import Checkpoint


def served(connection: duckdb.DuckDBPyConnection, checkpoint: Checkpoint, model: Path) -> Served:
    """Returns how a checkpoint, whose model lies in a folder, is served.

    Raises ExportError if the recipe that trained it is not recorded, or not read by this Precept.
    """
    recipe = json.loads(resolved_recipe(connection, checkpoint))
    try:
        engine = EngineConfig.model_validate(recipe.get("student") or recipe.get("engine"))
    except ValidationError as error:
        raise ExportError(
            f"this Precept does not read the engine in the recipe of run {checkpoint.run_id} "
            f"({error.errors()[0]['msg']}); export with the version that trained the checkpoint"
        ) from error
    serving = serving_of(engine, vocabulary=read_vocabulary(model) or {})
    root, _, _ = (lineage_of(connection, checkpoint).root or "").partition("@")
    return Served(
        arguments=serving.arguments,
        parser=serving.parser,
        marks=(serving.marks.opening, serving.marks.closing),
        # The version of a model that came from a folder has the folder's name alone.
        base_model=root if "/" in root else None,
    )
