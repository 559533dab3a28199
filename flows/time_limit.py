"""A run that takes longer than its recipe allows is ended, and says so whatever it was doing."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def told_as_timeout(hours: float) -> Iterator[None]:
    """Raises TimeoutError in place of any other error of a block that ran longer than `hours`.

    Prefect ends a run by an exception between any two of its instructions, and where that meets
    Prefect's own bookkeeping the run fails with an error that says nothing of the time.
    """
    began = time.monotonic()
    try:
        yield
    except Exception as error:
        if time.monotonic() - began < 3600 * hours:
            raise
        raise TimeoutError(
            f"the run was ended because it took longer than {hours:g} hours; "
            "raise nightly.hours to give it more"
        ) from error
