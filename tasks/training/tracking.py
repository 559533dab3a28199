"""Trackers: what shows the figures of a training's steps beside the warehouse.

A tracker writes into the warehouse's folder `tracking` and sends nothing, unless the variables that
it reads itself say otherwise.
"""

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Tracker = Literal["none", "trackio", "wandb", "mlflow"]

_PROJECT = "precept"
"""The name under which a tracker lists the trainings of all warehouses that it is shown."""


class TrackerError(ValueError):
    """A tracker that is not installed."""


@dataclass(frozen=True, slots=True)
class Tracking:
    """The tracker of one training, and the variables that it is started with."""

    tracker: Tracker = "none"
    variables: Mapping[str, str] = field(default_factory=dict)
    """By name, as the user set them or else as they keep the tracker on this machine."""

    @classmethod
    def of(cls, report_to: Tracker | None, *, training: str, folder: Path) -> "Tracking":
        """Returns the tracking of a training; `folder` is that of the warehouse on a disk.

        Raises TrackerError if the tracker is not installed.
        """
        require_installed(report_to, training=training)
        tracker = report_to or ("trackio" if _is_installed("trackio") else "none")
        settings = _offline(tracker, folder / "tracking" / tracker)
        # A variable that is set to nothing tells a tracker nothing, and would let it go online.
        return cls(
            tracker, {name: os.environ.get(name) or value for name, value in settings.items()}
        )

    def trl_arguments(self, run_name: str) -> dict[str, str | bool]:
        """Returns the arguments by which TRL reports to the tracker."""
        arguments: dict[str, str | bool] = {"report_to": self.tracker, "run_name": run_name}
        if self.tracker == "trackio":
            # A Space of its own would be published at the end of a training that uses one.
            arguments |= {"project": _PROJECT, "trackio_static_space_id": False}
        return arguments

    def set_up(self) -> None:
        """Sets the variables in a worker, and makes the folder that they name."""
        os.environ.update(self.variables)
        for name in _FOLDERS & self.variables.keys():
            Path(self.variables[name]).mkdir(parents=True, exist_ok=True)


_FOLDERS = {"TRACKIO_DIR", "WANDB_DIR"}
"""Variables that name a folder, which must be there."""


def require_installed(report_to: Tracker | None, *, training: str) -> None:
    """Raises TrackerError if a training is to report to a tracker that is not installed."""
    if report_to in (None, "none") or _is_installed(report_to or ""):
        return
    package = "mlflow or mlflow-skinny" if report_to == "mlflow" else report_to
    raise TrackerError(
        f"{training}.report_to is {report_to!r}, which is not installed; install {package}, or "
        'set report_to = "none"'
    )


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _offline(tracker: Tracker, folder: Path) -> dict[str, str]:
    """Returns the variables that keep a tracker's figures in a folder, and it from the network."""
    return {
        "none": {},
        "trackio": {
            "TRACKIO_DIR": str(folder),
            "GRADIO_ANALYTICS_ENABLED": "False",
        },
        "wandb": {
            "WANDB_MODE": "offline",
            "WANDB_DIR": str(folder),
            "WANDB_PROJECT": _PROJECT,
            "WANDB_SILENT": "true",
            "WANDB_ERROR_REPORTING": "false",
        },
        "mlflow": {
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "MLFLOW_EXPERIMENT_NAME": _PROJECT,
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
    }[tracker]
