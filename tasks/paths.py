"""The lookup of a path that a recipe names.

A relative path is looked up beside the recipe (or the suite) that names it, then in the working
folder, then in Precept's own folder, then in `$PRECEPT_DATA`; the first place that has it counts.
"""

import glob
import importlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo

from specs.template import shipped_sets

PROJECT = Path(__file__).parents[1]
"""Precept's own folder."""


def _beside(name: str, info: ValidationInfo, *, accept: Callable[[str], bool]) -> str:
    """Returns the absolute path of what lies beside the file that names it, else the name."""
    folder = (info.context or {}).get("folder")
    path = os.path.expanduser(name)
    if folder is None or os.path.isabs(path):
        return path
    beside = os.path.join(folder, path)
    return beside if accept(beside) else name


def _is_any(path: str) -> bool:
    return os.path.exists(path) or any(glob.iglob(path, recursive=True))


Located = Annotated[str, AfterValidator(partial(_beside, accept=_is_any))]
"""A file, a folder or a glob. Validated with context `{"folder": …}`, it becomes absolute if that
folder holds it."""
LocatedFile = Annotated[str, AfterValidator(partial(_beside, accept=os.path.isfile))]
"""The same for a file alone: a folder of that name does not count."""
LocatedFolder = Annotated[str, AfterValidator(partial(_beside, accept=os.path.isdir))]
"""The same for a folder alone."""


def _templates(names: str | list[str], info: ValidationInfo) -> str | list[str]:
    """Returns sets of templates as they are, and folders by their absolute paths.

    The name of a set is always the set; a folder of that name is written `./name`.
    """
    if isinstance(names, list):
        return [str(_templates(name, info)) for name in names]
    if names in shipped_sets():
        return names
    beside = _beside(names, info, accept=os.path.isdir)
    found = find(beside, accept=Path.is_dir)
    if found is None:
        raise ValueError(
            f"no templates at {names} ({places()}); give one of the sets "
            f"{', '.join(shipped_sets())}, or a folder of templates"
        )
    return str(found)


LocatedTemplates = Annotated[str | list[str], AfterValidator(_templates)]
"""A set of templates that ships with Precept, a folder of one's own, or several of them."""


def bases() -> list[Path]:
    """Returns the folders in which a name is looked up that is not beside the recipe."""
    data = os.environ.get("PRECEPT_DATA")
    return [Path.cwd(), PROJECT, *([Path(data)] if data else [])]


def find(name: str | Path, *, accept: Callable[[Path], bool] = Path.exists) -> Path | None:
    """Returns the first place of that name which `accept` takes, or None."""
    return next((base / name for base in bases() if accept(base / name)), None)


def places() -> str:
    """Returns where `find` looks, for a message about what it did not find."""
    listed = ", in ".join(map(str, dict.fromkeys(bases())))
    more = "" if os.environ.get("PRECEPT_DATA") else "; PRECEPT_DATA is unset"
    return f"looked beside the recipe, in {listed}{more}"


def find_function(name: str) -> Callable[..., Any]:
    """Returns the function named `package.module:function`; raises ValueError if there is none."""
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute) if attribute else None
    except (ImportError, AttributeError):
        function = None
    if not callable(function):
        raise ValueError(f"no function {name!r}: give one as package.module:function")
    found: Callable[..., Any] = function
    return found
