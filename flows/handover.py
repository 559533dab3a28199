"""How a checkpoint is served where Precept is not, told by the recipe that trained it."""

import json
from pathlib import Path
from typing import Any

import duckdb

from tasks.engine.model_files import read_vocabulary
from tasks.engine.requests import EngineConfig
from tasks.engine.serving import serving_of
from tasks.paths import find
from warehouse.catalog import look_up
from warehouse.exports.folders import Served
from warehouse.lineage import lineage_of
from warehouse.tables import Checkpoint


def served(
    connection: duckdb.DuckDBPyConnection, checkpoint: Checkpoint, model: Path, *, folder: str
) -> Served:
    """Returns how the model of a checkpoint, which lies in a folder, is served from another."""
    [record] = look_up(connection, "resolved_recipe", run_id=checkpoint.run_id)
    recipe: dict[str, Any] = json.loads(record["resolved_recipe"])
    section = recipe.get("student") or recipe["engine"]
    engine = EngineConfig.model_validate(section)
    serving = serving_of(engine, folder=folder, vocabulary=read_vocabulary(model) or {})
    root = lineage_of(connection, checkpoint).root
    # A revision of a folder is the hash of its files: such a model has no place on the Hub.
    is_folder = find(engine.model, accept=Path.is_dir) is not None or "/" not in engine.model
    return Served(
        command=serving.command,
        parser=serving.parser,
        marks=(serving.marks.opening, serving.marks.closing),
        base_model=None if is_folder or root is None else root.split("@", 1)[0],
    )
