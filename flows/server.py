"""The temporary Prefect server of a command: in a session of its own, gone with the command."""

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import prefect
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

_PR_SET_PDEATHSIG = 1
_SECONDS_TO_START = 180
"""Prefect's own limit of 20 s is too short for a busy machine."""


class _OwnSession(SubprocessASGIServer):
    """Prefect's own temporary server, started otherwise.

    In the terminal's process group it would end at Ctrl-C, before the run could tell it of its end.
    Its output goes where the command's own does.
    """

    def _run_uvicorn_command(self) -> "subprocess.Popen[Any]":
        command = [sys.executable, "-m", "uvicorn", "--app-dir", str(Path(prefect.__file__).parent)]
        command += ["--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--log-level", "error", "--lifespan", "on"]
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        own = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}
        return subprocess.Popen(
            command,
            env={**os.environ, **own, "PREFECT__SERVER_FINAL": "1", **settings},
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )


def _end_with_parent() -> None:
    """Has the kernel end this process when the thread that started it ends, also by SIGKILL."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def start_server() -> None:
    """Starts a temporary server unless one is configured; call it from the main thread."""
    settings = get_current_settings()
    if settings.api.url or not settings.server.ephemeral.enabled:
        return
    # Prefect's clients look for the server of no given port here.
    SubprocessASGIServer._instances[None] = _OwnSession()
    SubprocessASGIServer().start(timeout=_SECONDS_TO_START)
