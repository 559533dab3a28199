"""Progress of long work: a bar in the terminal, a progress artifact in Prefect."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_LINE_EVERY_SECONDS = 30.0
_ARTIFACT_EVERY_SECONDS = 2.0


class Rate(ProgressColumn):
    """Rows a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


@contextmanager
def progress_bar(
    title: str, total: int, *, publish: Callable[[float], None] = lambda percent: None
) -> Iterator[Callable[[int], None]]:
    """Shows how far a stage is; yields what to call with the number of rows just finished.

    On a terminal a bar with rate and time left, else a line every half minute, on stderr.
    `publish` is told the share that is done, in percent, every two seconds.
    """
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    state = _State()
    with bar:
        row = bar.add_task(title, total=total)

        def advance(count: int) -> None:
            bar.advance(row, count)
            now = time.monotonic()
            # The first rows wait for actors to start: the rate is that of the rows after them.
            if state.done == 0:
                state.began = state.printed = now
                state.before = count
            state.done += count
            if now - state.published > _ARTIFACT_EVERY_SECONDS:
                state.published = now
                publish(100 * state.done / max(1, total))
            if not console.is_terminal and now - state.printed > _LINE_EVERY_SECONDS:
                state.printed = now
                rate = (state.done - state.before) / max(0.1, now - state.began)
                left = (total - state.done) / max(0.01, rate)
                print(
                    f"{title}: {state.done} of {total}, {rate:.1f}/s, {left:.0f} s left",
                    file=sys.stderr,
                    flush=True,
                )

        yield advance
    publish(100.0)


def artifact_key(name: str) -> str:
    """A name as Prefect takes it: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@contextmanager
def prefect_progress(name: str) -> Iterator[Callable[[float], None]]:
    """A progress artifact of the task run; yields what to tell the percentage.

    What is only for looking at is left out while the server is away.
    """
    import httpx
    from prefect.artifacts import create_progress_artifact, update_progress_artifact

    artifact = create_progress_artifact(
        progress=0.0, key=artifact_key(name), description=f"Progress of {name}"
    )

    def publish(percent: float) -> None:
        with suppress(httpx.HTTPError):
            update_progress_artifact(
                artifact_id=artifact,  # type: ignore[arg-type]
                progress=percent,
            )

    yield publish


@dataclass(slots=True)
class _State:
    done: int = 0
    before: int = 0
    began: float = field(default_factory=time.monotonic)
    printed: float = field(default_factory=time.monotonic)
    published: float = 0.0
