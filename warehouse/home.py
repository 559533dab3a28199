"""A place on a disk or an object store: is it a warehouse, and are its faults worth a retry.

Commands that read ask `require_warehouse` first and commands that write `make_home`, so that a
wrong place is told in one sentence and never looks like an empty warehouse.
"""

import errno
import glob
import os
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from warehouse.tables import FORMER_TABLES, TABLES, Table

_TRANSIENT = {errno.EBUSY, errno.EAGAIN, errno.EIO, errno.EINTR, errno.ESTALE, errno.ENETUNREACH}
"""EBUSY: the store is throttling. ESTALE: a network disk was unreachable."""


class ShardError(ValueError):
    """A shard that must not be read, or rows that do not fit their table."""


class HomeError(ValueError):
    """A place that is no warehouse, or that cannot become one."""


def may_pass(error: BaseException) -> bool:
    """Returns True for a transient fault of a disk, a store or a network, which a retry may mend.

    Transient are a lost connection and a throttling store; a full disk, missing rights and all
    other exceptions are not.
    """
    # Imported here: botocore is needed only once something has failed.
    from botocore import exceptions as store

    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, store.HTTPClientError | store.ConnectionError):
        return True
    return isinstance(error, OSError) and error.errno in _TRANSIENT


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of a warehouse, on a disk or an object store (`s3://bucket/folder`)."""

    url: str
    """A path, or a URL that fsspec knows."""

    @property
    def files(self) -> fsspec.AbstractFileSystem:
        """The file system that the home lies on."""
        # Other processes write too: a cached listing would hide what they wrote.
        return _resolve(self.url, use_listings_cache=False)[0]

    def open_reader(self) -> fsspec.AbstractFileSystem:
        """Returns a file system for many reads at one moment: it lists each folder once.

        It fetches only the requested bytes of a shard. By default, s3fs would ask for the size of a
        shard at every open, and read 50 MiB ahead.
        """
        files, _ = _resolve(self.url, use_listings_cache=True, default_cache_type="none")
        # fsspec hands out one instance for equal arguments, with its listings of an earlier moment.
        files.invalidate_cache()
        return files

    @property
    def root(self) -> str:
        """The home as its file system spells it."""
        return _resolve(self.url)[1].rstrip("/")

    @property
    def is_local(self) -> bool:
        """True if the home lies on a disk."""
        return isinstance(self.files, LocalFileSystem)

    def folder(self, table: Table | str) -> str:
        """Returns the folder of a table's shards."""
        return f"{self.root}/{self.table_name(table)}"

    @staticmethod
    def table_name(table: Table | str) -> str:
        """Returns the name of a table, which may be given by name."""
        return table if isinstance(table, str) else table.name

    def readable(self, path: str) -> str:
        """Returns a path of the home's file system with its protocol, as DuckDB reads it."""
        if self.is_local:
            return path
        return f"{self.files.unstrip_protocol('').split('://')[0]}://{path}"

    def pattern(self, path: str) -> str:
        """Returns the glob that matches this path of the home alone, as DuckDB reads it."""
        return self.readable(glob.escape(path))


def _resolve(url: str, **options: Any) -> tuple[fsspec.AbstractFileSystem, str]:
    """Returns the file system of a URL, and the path in it; raises HomeError if there is none."""
    try:
        files, path = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise HomeError(
            f"{url} is no place for a warehouse: {error}; give a folder, or s3://bucket/folder"
        ) from error
    return files, str(path)


_REMEDY = "give --home or PRECEPT_HOME the folder of one, or make one with precept refresh"


def require_warehouse(home: Home) -> None:
    """Raises HomeError if there is no warehouse to read at a place."""
    names = _names_at(home)
    if names is None:
        raise HomeError(f"there is no warehouse at {home.url}: nothing is there; {_REMEDY}")
    if not names & {*TABLES, *FORMER_TABLES}:
        raise HomeError(
            f"there is no warehouse at {home.url}: it has no folder of a table, such as prompts or "
            f"runs; {_REMEDY}"
        )


def has_warehouse(home: Home) -> bool:
    """Returns True if there is a warehouse at a place, and False if one can still be made there.

    Raises HomeError if the place cannot be read, or is no folder.
    """
    return bool((_names_at(home) or set()) & {*TABLES, *FORMER_TABLES})


def make_home(home: Home) -> None:
    """Makes the folder of a warehouse if need be; raises HomeError if it cannot be written to."""
    if not home.is_local:
        _require_bucket(home)
        return
    try:
        os.makedirs(home.root, exist_ok=True)
    except OSError as error:
        cause = "it is a file" if os.path.isfile(home.root) else _cause(error)
        raise HomeError(
            f"no warehouse can be made at {home.url}: {cause}; give --home or PRECEPT_HOME another "
            "folder"
        ) from error
    if not os.access(home.root, os.R_OK | os.W_OK | os.X_OK):
        raise HomeError(
            f"the warehouse at {home.url} cannot be written to: permission denied; make the folder "
            "writable, or give another --home"
        )


def _names_at(home: Home) -> set[str] | None:
    """Returns the names at a place, or None if nothing is there; raises HomeError for a file."""
    from botocore.exceptions import BotoCoreError

    try:
        if home.is_local:
            return set(os.listdir(home.root))
        paths = home.files.ls(home.root, detail=False)
        return {str(path).rstrip("/").rsplit("/", 1)[-1] for path in paths}
    except FileNotFoundError:
        return None
    except (OSError, BotoCoreError) as error:
        cause = "it is a file" if home.is_local and os.path.isfile(home.root) else _cause(error)
        raise HomeError(
            f"there is no warehouse to read at {home.url}: {cause}; {_REMEDY}"
        ) from error


def _require_bucket(home: Home) -> None:
    """Raises HomeError if the bucket of a home on a store is not there or cannot be reached."""
    if _names_at(home) is None and "s3" in home.files.protocol:
        bucket = home.root.split("/")[0]
        if not home.files.exists(bucket):
            raise HomeError(
                f"no warehouse can be made at {home.url}: there is no bucket {bucket}; make it, or "
                "give another --home"
            )


def _cause(error: Exception) -> str:
    """Returns the fault of a disk or a store in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    first = (text.strip() or type(error).__name__).splitlines()[0]
    name = error.filename if isinstance(error, OSError) else None
    return f"{first} ({name})" if name else first
