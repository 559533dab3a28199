"""The command line, `precept`.

stdout is the result, stderr the progress. A user's mistake ends with exit code 2 and one sentence.
"""

import atexit
import importlib
import io
import sys

from flows.command import app, closed_pipe_ends
from flows.errors import discard_log, libraries_logged
from flows.interrupt import ended_by_signals

# Each registers its commands, which `--help` lists in this order.
for _module in (
    "flows.making",
    "flows.policies",
    "flows.interchange",
    "flows.looking",
    "flows.reviewing",
    "flows.inspecting",
    "flows.publishing",
):
    importlib.import_module(_module)


def _end_event_loops() -> None:
    """Ends Prefect's event loops, whose threads would outlive the interpreter.

    A live thread keeps modules from being freed, and DuckDB's bindings report theirs as leaks.
    """
    threads = sys.modules.get("prefect._internal.concurrency.threads")
    if threads is None:
        return
    for loop in (threads._global_loop, threads._run_sync_loop):
        if loop is not None:
            loop.shutdown()
            loop.thread.join(timeout=5)


def main() -> None:
    """Entry point of `precept`."""
    # Registered before Prefect and Ray are imported, so it runs after their own exit handlers.
    atexit.register(_end_event_loops)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that knows few characters is shown the numbers of the others.
            stream.reconfigure(errors="backslashreplace")
    with libraries_logged(), ended_by_signals(at_end=discard_log), closed_pipe_ends():
        app()


if __name__ == "__main__":
    main()
