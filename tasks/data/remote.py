"""Files of a source on a store, such as `s3://bucket/folder` and `hf://datasets/owner/name`.

Any protocol that fsspec knows will do. A store that cannot be read is told in one sentence,
whatever its library raises.
"""

import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any

_LONGEST_CAUSE = 200
_CREDENTIALS = ("credential", "permission", "forbidden", "unauthorized", "401", "403")
"""Words in the faults of stores that want to know who asks."""


class StoreError(ValueError):
    """A store that cannot be read."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on a store, read as it streams in."""

    url: str
    """Its place as messages give it."""
    _files: Any = field(repr=False, compare=False)
    _path: str = field(repr=False, compare=False)

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self._path).name

    @property
    def suffix(self) -> str:
        """The ending of its name."""
        return PurePosixPath(self._path).suffix

    def open(self) -> IO[bytes]:
        """Opens the file as it lies on the store."""
        with _told(self.url):
            stream: IO[bytes] = self._files.open(self._path, "rb")
            return stream


def is_remote(path: str) -> bool:
    """Returns True for a URL."""
    return "://" in path


def find_remote(url: str) -> list[RemoteFile]:
    """Returns the files at a URL, which names a file, a folder or a glob, sorted.

    Files and folders below it whose names begin with a dot are none. Raises StoreError if the store
    cannot be read.
    """
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(url)
        # A listing of an earlier moment may lack files.
        files.invalidate_cache()
        with _told(url):
            found, root = _listed(files, str(root))
    except StoreError:
        raise
    except (ImportError, ValueError) as error:
        raise StoreError(
            f"{url}: {error}; give a path, s3://bucket/folder or hf://datasets/owner/name"
        ) from error
    return [
        RemoteFile(files.unstrip_protocol(path), files, path)
        for path in sorted(found)
        if not any(part.startswith(".") for part in path[len(root) :].split("/"))
    ]


def _listed(files: Any, root: str) -> tuple[list[str], str]:
    """Returns the files at a path of a store, and the part of their paths that is no glob."""
    marks = [root.find(mark) for mark in "*?[" if mark in root]
    if marks:
        return [path for path in files.glob(root) if not files.isdir(path)], root[: min(marks)]
    return ([root] if files.isfile(root) else list(files.find(root))), root


@contextmanager
def reading(file: RemoteFile) -> Iterator[None]:
    """Raises StoreError in place of what a store raises while one of its files is read."""
    with _told(file.url):
        yield


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Raises StoreError in place of what a store raises; what a file is faulted for passes."""
    try:
        yield
    except (ValueError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile):
        # Faults of the file itself.
        raise
    except FileNotFoundError as error:
        raise StoreError(f"{url}: nothing is there; check the bucket and the path") from error
    except Exception as error:  # every store has errors of its own
        cause = " ".join((str(error) or type(error).__name__).split())[:_LONGEST_CAUSE]
        words = f"{type(error).__name__} {cause}".lower()
        remedy = "check that it can be reached"
        if any(word in words for word in _CREDENTIALS):
            remedy = "give its credentials, by AWS_ACCESS_KEY_ID and its fellows or by HF_TOKEN"
        raise StoreError(f"{url}: cannot be read ({cause}); {remedy}") from error
