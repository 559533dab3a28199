"""A project of one's own: a recipe, a small pack and ten prompts, written into a folder."""

import shutil
import tempfile
from pathlib import Path

STARTER = Path(__file__).parent / "starter"
"""The files of a new project; the folder is complete and runs as it is."""


def write_project(folder: str | Path) -> list[Path]:
    """Copies the starter into a folder that is new or empty; returns the files.

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
    _place_files(place)
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def _place_files(place: Path) -> None:
    """Copies the starter to a folder that is new or empty."""
    try:
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}-") as temporary:
            whole = Path(temporary) / "project"
            shutil.copytree(STARTER, whole, ignore=shutil.ignore_patterns("__pycache__"))
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
