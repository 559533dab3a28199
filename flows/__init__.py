"""Order: which work is done when. Prefect and the command line, nothing else."""

import os

# Nothing phones home unless the user says so; Prefect reads this when it is imported.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
# What our own modules log is kept with the run.
os.environ.setdefault("PREFECT_LOGGING_EXTRA_LOGGERS", "precept")
os.environ.setdefault("PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW", "ignore")
