"""A project or a policy pack to start from, written into a folder."""

import shutil
import tempfile
from pathlib import Path

STARTER = Path(__file__).parent / "starter"
"""The files of a new project; the folder is complete and runs as it is."""
STARTER_PACK = Path(__file__).parent / "starter_pack"
"""The files of a new pack for a real model, which uses each part of the format once. The pack of
`STARTER` is another: it has to speak in the few words of the scale model."""


def write_project(folder: str | Path) -> list[Path]:
    """Copies the starter of a project into a folder; see `write_starter`."""
    return write_starter(STARTER, folder)


def write_starter(starter: Path, folder: str | Path) -> list[Path]:
    """Copies a starter into a folder that is new or empty; returns the files.

    They appear all together or not at all. Raises ValueError if the folder holds anything, or is
    not a folder.
    """
    place = Path(folder).resolve()
    if place.exists() and not place.is_dir():
        raise ValueError(f"{place} is a file; give a folder that is new or empty")
    if place.is_dir() and any(place.iterdir()):
        raise ValueError(f"{place} is not empty; give a folder that is new or empty")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        above = Path(error.filename)
        cause = f"{above} is a file" if above.is_file() else f"{error.strerror} ({above})"
        raise ValueError(f"{place} cannot be made: {cause}; give another folder") from error
    _place_files(starter, place)
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def _place_files(starter: Path, place: Path) -> None:
    """Copies a starter to a folder that is new or empty."""
    try:
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}-") as temporary:
            whole = Path(temporary) / "starter"
            shutil.copytree(starter, whole, ignore=shutil.ignore_patterns("__pycache__"))
            if place == Path.cwd():
                # The folder in which the user stands must stay the same one.
                for part in whole.iterdir():
                    part.rename(place / part.name)
            else:
                # An empty folder is replaced in one step; any other refuses.
                whole.rename(place)
    except OSError as error:
        raise ValueError(
            f"{place} cannot be made: {error.strerror}; give another folder"
        ) from error
