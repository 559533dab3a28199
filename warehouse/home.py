"""A place on a disk or an object store, and which of its faults are worth a retry."""

import errno
import glob
from dataclasses import dataclass

import fsspec
from fsspec.implementations.local import LocalFileSystem

from warehouse.tables import Table

_TRANSIENT = {errno.EBUSY, errno.EAGAIN, errno.EIO, errno.EINTR, errno.ESTALE, errno.ENETUNREACH}
"""EBUSY: the store is throttling. ESTALE: a network disk was unreachable."""


class ShardError(ValueError):
    """A shard that must not be read, or rows that do not fit their table."""


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
        return fsspec.core.url_to_fs(self.url, use_listings_cache=False)[0]

    def open_reader(self) -> fsspec.AbstractFileSystem:
        """Returns a file system for many reads at one moment: it lists each folder once.

        It fetches only the requested bytes of a shard. By default, s3fs would ask for the size of a
        shard at every open, and read 50 MiB ahead.
        """
        files, _ = fsspec.core.url_to_fs(
            self.url, use_listings_cache=True, default_cache_type="none"
        )
        # fsspec hands out one instance for equal arguments, with its listings of an earlier moment.
        files.invalidate_cache()
        return files

    @property
    def root(self) -> str:
        """The home as its file system spells it."""
        return str(fsspec.core.url_to_fs(self.url)[1]).rstrip("/")

    @property
    def is_local(self) -> bool:
        """True if the home lies on a disk."""
        return isinstance(self.files, LocalFileSystem)

    def folder(self, table: Table | str) -> str:
        """Returns the folder of a table's shards."""
        name = table if isinstance(table, str) else table.name
        return f"{self.root}/{name}"

    def readable(self, path: str) -> str:
        """Returns a path of the home's file system with its protocol, as DuckDB reads it."""
        if self.is_local:
            return path
        return f"{self.files.unstrip_protocol('').split('://')[0]}://{path}"

    def glob_url(self, table: Table) -> str:
        """Returns the glob of a table's shards, as DuckDB reads it."""
        return self.readable(f"{glob.escape(self.folder(table))}/*.parquet")
