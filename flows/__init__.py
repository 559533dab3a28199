"""Order: which work is done when. Prefect and the command line, nothing else."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

INTERRUPTED = "precept: interrupted; run the same command again to go on"


def _end(number: int, frame: FrameType | None) -> NoReturn:
    os.write(2, f"\n{INTERRUPTED}\n".encode())
    os._exit(128 + number)


# A command that still imports the command line holds nothing; flows/interrupt.py takes over.
if sys.argv and os.path.basename(sys.argv[0]) in ("-m", "precept"):
    signal.signal(signal.SIGINT, _end)

# Nothing phones home unless the user says so; Prefect reads this when it is imported.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
# What our own modules log is kept with the run.
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "precept")
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
