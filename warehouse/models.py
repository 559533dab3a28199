"""Model folders in and out of a warehouse, whole or not at all.

Engines and trainers read models from a disk. A warehouse on a disk keeps them where they are used;
one on an object store keeps a copy, and a scratch folder on a disk holds the models in use.
"""

import hashlib
import os
import shutil
import uuid
from pathlib import Path

from warehouse.home import Home

_LAST = "config.json"
"""The file that makes a folder a model. It is written last, so its presence means a whole copy."""


def scratch(home: Home) -> Path:
    """Returns the folder on a disk that holds a warehouse's models in use; all nodes must see it.

    A warehouse on a disk is its own scratch folder. For a store it is a folder of
    `$PRECEPT_SCRATCH` or, if that is not set, of the user's cache.
    """
    if home.is_local:
        return Path(home.root)
    # Two stores must not share a folder, and a URL is no file name.
    place = str(home.files.unstrip_protocol(home.root))
    name = hashlib.sha256(place.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("PRECEPT_SCRATCH") or cache / "precept").absolute() / name


def has_folder(home: Home, path: str) -> bool:
    """Returns True if the warehouse has a whole model at this path, relative to its root."""
    return bool(home.files.isfile(f"{home.root}/{path}/{_LAST}"))


def keep_folder(home: Home, path: str) -> None:
    """Copies the model at this path of the scratch folder into the warehouse, if it is a store."""
    if home.is_local:
        return
    folder = scratch(home) / path
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != _LAST)
    for file in [*files, folder / _LAST]:
        home.files.put_file(str(file), f"{home.root}/{path}/{file.name}")


def fetch_folder(home: Home, path: str) -> Path:
    """Returns the model's folder on a disk; copies it from the store if it is not there yet.

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
        # Another process may have fetched the same model meanwhile; its copy is as good.
        if not folder.exists():
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
