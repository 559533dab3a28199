"""The state that all sessions of the page share: the warehouse and its latest snapshot."""

import threading

import duckdb

from warehouse.app.snapshot import Snapshot
from warehouse.catalog import connect
from warehouse.characters import one_line
from warehouse.home import Home
from warehouse.reports.compare import find_run


class Desk:
    """The latest snapshot of a warehouse, taken again on request."""

    def __init__(self, home: Home, run_id: str | None = None) -> None:
        """Takes the first snapshot.

        Raises QuestionError for an unknown run, and ShardError if another version of Precept wrote
        the warehouse.
        """
        self.home = home
        self.run = find_run(connect(home), run_id) if run_id is not None else None
        """The run that the page begins with, a row of table `runs`; None without one."""
        self._taking = threading.Lock()
        self.snapshot = Snapshot(home)

    def renew(self) -> str:
        """Takes a snapshot of this moment, and returns ""; waits for one that is being taken.

        If the warehouse cannot be read, keeps the one before and returns the reason.
        """
        before = self.snapshot
        with self._taking:
            if self.snapshot is before:
                try:
                    self.snapshot = Snapshot(self.home)
                except (ValueError, OSError, duckdb.Error) as error:
                    return f"not read again: {one_line(str(error))}"
        return ""


_OPEN: list[Desk] = []


def open_desk(home: Home, *, run_id: str | None = None) -> Desk:
    """Takes the snapshot that the page of this process shows, and returns its desk."""
    _OPEN[:] = [Desk(home, run_id)]
    return _OPEN[0]


def desk() -> Desk:
    """Returns the desk of this process; raises RuntimeError before `open_desk`."""
    if not _OPEN:
        raise RuntimeError("no warehouse is open: start the page with precept inspect")
    return _OPEN[0]
