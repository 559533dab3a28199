"""Files on a disk that appear whole or not at all."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class OutputError(ValueError):
    """A file that cannot be written where the user wants it."""


@contextmanager
def write_whole(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yields a path beside `path` to write to; the file takes its name when the block ends.

    If the block raises, nothing is left behind and a file that was there before stays. Raises
    OutputError if the folder is not there or takes no file, or if there is a file of that name that
    `replace` does not allow to be replaced.
    """
    _require_place(path, replace=replace)
    # A name of its own, so that two writers of one file do not write into each other's.
    partial = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}.partial")
    try:
        try:
            partial.touch()
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}") from error
        yield partial
        if replace:
            partial.replace(path)
        else:
            _publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def require_folder(path: str | Path) -> None:
    """Makes a folder for files; raises OutputError if none can be written in it."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}); give another folder"
        ) from error


def _publish(partial: Path, path: Path) -> None:
    """Gives a file its name unless another one took it meanwhile."""
    try:
        os.link(partial, path)
    except FileExistsError as error:
        raise _taken(path) from error
    except OSError:  # a disk without hard links
        partial.replace(path)


def _require_place(path: Path, *, replace: bool) -> None:
    """Raises OutputError if a file of this name cannot be written."""
    if not path.parent.is_dir():
        fault = "is a file" if path.parent.is_file() else "is not there"
        raise OutputError(f"{path}: folder {path.parent} {fault}; make it, or give another file")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file")
    if path.exists() and not replace:
        raise _taken(path)


def _taken(path: Path) -> OutputError:
    return OutputError(f"{path} is there already; give another name, or --force to replace it")
