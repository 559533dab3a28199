"""Files on a disk that appear whole or not at all, and lines that are added to one."""

import errno
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
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
            raise _unwritable(path, error) from error
        yield partial
        if replace:
            partial.replace(path)
        else:
            _publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def append_lines(path: Path, lines: bytes) -> None:
    """Adds lines to a file, which may be new or lack a newline at its end, and syncs it.

    What the file has stays as it is, byte by byte, and two writers do not break each other's lines.
    Raises OutputError if the file cannot be written.
    """
    with _open_to_append(path) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            lines = (b"" if file.read() == b"\n" else b"\n") + lines
        if file.write(lines) < len(lines):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())


def require_appendable(path: Path) -> None:
    """Makes the folder of a file; raises OutputError if the file cannot be added to."""
    require_folder(path.parent)
    _require_place(path, replace=True)
    if path.exists():
        with _open_to_append(path):
            pass


@contextmanager
def _open_to_append(path: Path) -> Iterator[FileIO]:
    _require_place(path, replace=True)
    try:
        with FileIO(path, "ab+") as file:
            yield file
    except OSError as error:
        raise _unwritable(path, error) from error


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


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path} cannot be written: {error.strerror}")


def _taken(path: Path) -> OutputError:
    return OutputError(f"{path} is there already; give another name, or --force to replace it")
