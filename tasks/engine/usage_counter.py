"""The usage of one engine while it runs: counted after every step, and shown in a file."""

import json
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tasks.engine.usage import Usage

_SECONDS_BETWEEN_WRITES = 0.5


class UsageCounter:
    """Counts what vLLM reports after each step.

    Called by the thread that steps the engine, between two steps: a slow call slows every request.
    """

    def __init__(self, live_path: Path | None = None) -> None:
        self.usage = Usage()
        self.live_path = live_path
        """File with the usage as JSON, for `precept status`. Unset: none is written."""
        self._last_progress = time.monotonic()
        self._last_written = 0.0

    @property
    def seconds_without_progress(self) -> float:
        """Time since the last new token, or since `note_progress` was called."""
        return time.monotonic() - self._last_progress

    def note_progress(self) -> None:
        """Starts the time without progress anew, as an engine without requests makes none."""
        self._last_progress = time.monotonic()

    def note_start(self, seconds: float) -> None:
        """Notes that the model is loaded, and the time that it took."""
        self.usage = replace(self.usage, seconds_to_start=seconds)
        self.note_progress()

    def add(self, usage: Usage) -> None:
        """Adds what an endpoint told of a request."""
        self.usage += usage
        self._show()

    def note(self, note: str) -> None:
        """Notes what an endpoint could not do as it was asked; each note stands once."""
        self.usage += Usage(notes=(note,))

    def count(self, scheduler_stats: Any, iteration_stats: Any) -> None:
        """Adds one step; either part of vLLM's statistics may be missing."""
        if scheduler_stats is not None:
            prefix_cache = scheduler_stats.prefix_cache_stats
            self.usage = replace(
                self.usage,
                running=scheduler_stats.num_running_reqs,
                prompt_tokens=self.usage.prompt_tokens + prefix_cache.queries,
                cached_tokens=self.usage.cached_tokens + prefix_cache.hits,
            )
        if iteration_stats is not None:
            self.usage = replace(
                self.usage,
                steps=self.usage.steps + 1,
                output_tokens=self.usage.output_tokens + iteration_stats.num_generation_tokens,
            )
            if iteration_stats.num_generation_tokens:
                self.note_progress()
        self._show()

    def _show(self) -> None:
        if self.live_path and time.monotonic() - self._last_written > _SECONDS_BETWEEN_WRITES:
            self._last_written = time.monotonic()
            self._write(self.live_path)

    def _write(self, path: Path) -> None:
        # A full disk must not end an engine: the file is only for people to look at.
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps({"time": time.time(), **asdict(self.usage)}))
            temporary.replace(path)
