"""Model folders in and out of a warehouse, whole or not at all.

Engines and trainers read models from a disk. A warehouse on a disk keeps them where they are used;
one on an object store keeps a copy, and a scratch folder holds them while they are used.
"""

import hashlib
import os
import shutil
import uuid
from pathlib import Path

from warehouse.home import Home

_LAST = "config.json"
"""The file that makes a folder a model; it is written last."""


def scratch(home: Home) -> Path:
    """Returns the folder on a disk where a warehouse's models are used; all nodes must see it.

    It is the warehouse itself; for a store, `$PRECEPT_SCRATCH` or a folder of the user's cache.
    """
    if home.is_local:
        return Path(home.root)
    place = str(home.files.unstrip_protocol(home.root))
    name = hashlib.sha256(place.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("PRECEPT_SCRATCH") or cache / "precept").absolute() / name


def has_folder(home: Home, path: str) -> bool:
    """Returns whether the warehouse has a whole model at this path, relative to its root."""
    return bool(home.files.isfile(f"{home.root}/{path}/{_LAST}"))


def keep_folder(home: Home, path: str) -> None:
    """Copies the model at this path of the scratch folder into a warehouse on a store."""
    if home.is_local:
        return
    folder = scratch(home) / path
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != _LAST)
    for file in [*files, folder / _LAST]:
        home.files.put_file(str(file), f"{home.root}/{path}/{file.name}")


def fetch_folder(home: Home, path: str) -> Path:
    """Returns the model's folder on the disk, and copies it from a store if it is not there yet.

    Raises FileNotFoundError if the warehouse has no such model.
    """
    folder = scratch(home) / path
    if (folder / _LAST).is_file():
        return folder
    if home.is_local or not has_folder(home, path):
        raise FileNotFoundError(f"there is no model at {home.url}/{path}; run precept train again")
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    partial.mkdir(parents=True)
    try:
        for name in home.files.ls(f"{home.root}/{path}", detail=False):
            home.files.get_file(name, str(partial / Path(name).name))
        if not folder.exists():
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
