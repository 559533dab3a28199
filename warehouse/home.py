"""A place on a disk or an object store, and which of its faults may pass."""

import errno
import glob
from dataclasses import dataclass

import fsspec
from fsspec.implementations.local import LocalFileSystem

from warehouse.tables import Table

_PASSING = {errno.EBUSY, errno.EAGAIN, errno.EIO, errno.EINTR, errno.ESTALE, errno.ENETUNREACH}
"""Busy is what a store is called that asks for patience; stale, a network's disk that was away."""


def may_pass(error: BaseException) -> bool:
    """Whether a fault of a disk, a store or a network may be over when it is tried again.

    True of a connection that was lost and a store that is too busy; false of a full disk, of
    missing rights, and of whatever is no such fault.
    """
    from botocore import exceptions as store

    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, store.HTTPClientError | store.ConnectionError):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of a warehouse, on a disk or an object store (`s3://bucket/folder`)."""

    url: str

    @property
    def files(self) -> fsspec.AbstractFileSystem:
        """The file system the home lies on."""
        # Other processes write too: a listing that was kept would hide what they wrote.
        return fsspec.core.url_to_fs(self.url, use_listings_cache=False)[0]

    def open_reader(self) -> fsspec.AbstractFileSystem:
        """The file system for one who asks many questions of what is there now.

        A folder is listed once, and of a shard no more is fetched than is asked for: s3fs would
        ask for the size of each shard again whenever it is opened, and read 50 MiB ahead.
        """
        files, _ = fsspec.core.url_to_fs(
            self.url, use_listings_cache=True, default_cache_type="none"
        )
        files.invalidate_cache()
        return files

    @property
    def root(self) -> str:
        """The home as its file system spells it."""
        return str(fsspec.core.url_to_fs(self.url)[1]).rstrip("/")

    @property
    def is_local(self) -> bool:
        return isinstance(self.files, LocalFileSystem)

    def folder(self, table: Table | str) -> str:
        """Where the shards of a table lie."""
        name = table if isinstance(table, str) else table.name
        return f"{self.root}/{name}"

    def glob_url(self, table: Table) -> str:
        """The shards of a table as DuckDB and others can read them."""
        prefix = "" if self.is_local else f"{self.files.unstrip_protocol('').split('://')[0]}://"
        return f"{prefix}{glob.escape(self.folder(table))}/*.parquet"


class ShardError(ValueError):
    """A shard that cannot be read, or rows that do not fit their table."""
