"""Files of a source: each found once, and opened whatever it is packed with."""

import bz2
import glob
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from tasks.data.remote import RemoteFile, StoreError, find_remote, is_remote, reading
from tasks.data.sources import SourceConfig
from tasks.paths import bases, places

KINDS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
"""The endings of the files that can be read, before that of how they are packed."""


File = Path | RemoteFile
"""A file on this machine or on a store."""


def _open_zstd(file: Any, mode: str) -> IO[bytes]:
    assert mode == "rb"
    source = str(file) if isinstance(file, Path) else pa.PythonFile(file, mode="r")
    stream: IO[bytes] = pa.input_stream(source, compression="zstd")
    return stream


_PACKED: dict[str, tuple[str, Callable[..., Any]]] = {
    ".gz": ("gzip", gzip.open),
    ".zst": ("zstd", _open_zstd),
    ".bz2": ("bzip2", bz2.open),
    ".xz": ("xz", lzma.open),
}


@dataclass(frozen=True, slots=True)
class Found:
    """The files at the path of a source."""

    files: Sequence[File]
    """Those that are read, sorted."""
    skipped: Sequence[File]
    """Those of another kind, and links that lead nowhere, sorted."""


def find_files(source: SourceConfig) -> Found:
    """Returns the files of a source, each once whatever links lead to it.

    Files and folders whose names begin with a dot are none. Raises ValueError if there is no file
    to read.
    """
    assert source.path
    if is_remote(source.path):
        return _find_remote(source, source.path)
    kinds = ", ".join(KINDS)
    for base in bases():
        # `base / path` is the path itself where it is absolute.
        place = base / source.path
        if place.is_file():
            if kind_of(place) not in KINDS:
                raise ValueError(
                    f"source {source.name!r}: {place} must be of a kind that can be read; give "
                    f"{kinds}, each also with {', '.join(_PACKED)}"
                )
            return Found([place], [])
        pattern = os.path.join(glob.escape(str(place)), "**") if place.is_dir() else str(place)
        found = _sorted_out(map(Path, _matches(pattern)))
        if found.files:
            return found
    raise ValueError(
        f"source {source.name!r}: no {kinds} at {source.path!r} ({places()}); give a "
        "file, a folder or a glob, or set PRECEPT_DATA to the folder that holds it"
    )


def _find_remote(source: SourceConfig, url: str) -> Found:
    """Returns the files at a URL; raises ValueError if there is none to read."""
    try:
        listed = find_remote(url)
    except StoreError as error:
        raise StoreError(f"source {source.name!r}: {error}") from error
    files = [file for file in listed if kind_of(file) in KINDS]
    if not files:
        raise ValueError(
            f"source {source.name!r}: no {', '.join(KINDS)} at {url!r}; give a file, a folder or a "
            "glob that is there"
        )
    return Found(files, [file for file in listed if file not in files])


def skipped_files(source: SourceConfig) -> list[str]:
    """Returns the files of a source that are not read, as paths below the folder it names."""
    if not source.path:
        return []
    skipped = find_files(source).skipped
    if is_remote(source.path):
        return [file.name for file in skipped]
    folder = next((base for base in bases() if (base / source.path).is_dir()), None)
    if folder is None:
        return [path.name for path in skipped]
    return [os.path.relpath(str(path), folder / source.path) for path in skipped]


def kind_of(path: File) -> str:
    """Returns the ending of a file in small letters, without that of how it is packed."""
    name = Path(path.name.lower())
    return Path(name.stem).suffix if name.suffix in _PACKED else name.suffix


def _sorted_out(paths: Iterator[Path]) -> Found:
    """Returns the files among paths, each once."""
    listed = sorted({path for path in paths if not path.is_dir()})
    files: dict[str, Path] = {}
    skipped: dict[str, Path] = {}
    for path in listed:
        if path.is_file() and kind_of(path) in KINDS:
            files.setdefault(os.path.realpath(path), path)
        else:
            skipped.setdefault(os.path.realpath(path), path)
    # A cache keeps files under the names of their hashes, and links to them that bear an ending.
    others = [path for real, path in skipped.items() if real not in files]
    return Found(list(files.values()), others)


def _matches(pattern: str) -> Iterator[str]:
    """Yields what a glob matches; `**` enters each folder once, whatever links lead to it."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from glob.iglob(pattern)
        return
    position = parts.index("**")
    rest = parts[position + 1 :] or ["*"]
    for top in glob.iglob(os.sep.join(parts[:position]) or os.sep):
        for folder in _folders(top):
            yield from _matches(os.path.join(glob.escape(folder), *rest))


def _folders(top: str) -> Iterator[str]:
    """Yields a folder and those below it."""
    entered: set[str] = set()
    for folder, names, _ in os.walk(top, followlinks=True, onerror=_refuse):
        real = os.path.realpath(folder)
        if real in entered:
            names.clear()
            continue
        entered.add(real)
        # In place: os.walk enters what is left in the list, in its order.
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield folder


def _refuse(error: OSError) -> None:
    raise ValueError(
        f"{error.filename}: cannot be read ({error.strerror}); make it readable or move it away"
    ) from error


def open_bytes(path: File) -> IO[bytes]:
    """Opens a file, unpacked as it is read."""
    packed = path.open() if isinstance(path, RemoteFile) else path
    if path.suffix.lower() not in _PACKED:
        return packed if not isinstance(packed, Path) else open(packed, "rb")
    stream: IO[bytes] = _PACKED[path.suffix.lower()][1](packed, "rb")
    return stream


def open_text(path: File, *, newline: str | None = None) -> IO[str]:
    """Opens a text file, unpacked as it is read."""
    # Lone surrogates pass here, and are replaced when the text is cleaned.
    return io.TextIOWrapper(
        open_bytes(path), encoding="utf-8-sig", errors="surrogatepass", newline=newline
    )


def is_packed(path: File) -> bool:
    """Returns True if a file is compressed as a whole."""
    return path.suffix.lower() in _PACKED


@contextmanager
def faults_named(path: File) -> Iterator[None]:
    """Raises ValueError with the path and the remedy in place of what reading a file raises."""
    try:
        if isinstance(path, RemoteFile):
            with reading(path):
                yield
        else:
            yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno:
            raise ValueError(
                f"{path}: cannot be read ({error.strerror}); make it readable or leave it out"
            ) from error
        name, _ = _PACKED.get(path.suffix.lower(), ("", None))
        whole = f"not a whole {name} file" if name else "cannot be read"
        raise ValueError(f"{path}: {whole} ({error}); fetch it again") from error
