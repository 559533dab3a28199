"""An exception → its cause, and the cause in one line, for rows and messages."""

import re
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path

from pydantic import ValidationError

from tasks.engine.cluster import logs_of_engines

_WRAPPING = ("ray", "prefect", "vllm")
"""Packages whose exceptions say less than those that they wrap."""


def root_cause(error: BaseException) -> BaseException:
    """Returns the exception that Ray, vLLM, Prefect or a group of tasks wrapped, however often.

    What any other exception was raised from stays behind it: its own words were chosen.
    """
    for cause in causes(error):
        is_group = isinstance(cause, BaseExceptionGroup)
        if not is_group and type(cause).__module__.split(".")[0] not in _WRAPPING:
            return cause
    return cause


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception, what it wraps or was raised from, and so on inward."""
    seen: list[BaseException] = []
    inner: BaseException | None = error
    while inner is not None and all(inner is not each for each in seen):
        seen.append(inner)
        yield inner
        inner = _inner(inner)


def _inner(error: BaseException) -> BaseException | None:
    """Returns the exception that this one wraps, or None.

    Ray Core keeps it under `cause`, Ray Train under `_base_exc` and by worker, all others under
    `__cause__`.
    """
    if isinstance(error, BaseExceptionGroup):
        return error.exceptions[0]
    failures = getattr(error, "worker_failures", None)
    found = list(failures.values())[-1:] if isinstance(failures, dict) else []
    found += [getattr(error, name, None) for name in ("_base_exc", "cause", "__cause__")]
    return next((each for each in found if isinstance(each, BaseException)), None)


def first_line(error: BaseException) -> str:
    """Returns the first line of an exception's own words; its type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


_FRAME = re.compile(r'^\s+File ".*", line \d+.*$', re.MULTILINE)


def message_of(error: BaseException) -> str:
    """Returns an exception's own words in one line: its first paragraph, and what a heading at its
    end announces.

    Libraries begin with what matters and add advice in paragraphs of its own. Ray begins with the
    traceback of the worker, and without one ends with what matters.
    """
    from ray.exceptions import RayError

    text = str(error)
    if isinstance(error, RayError):
        text = _behind_frames(text)
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]
    if not paragraphs:
        return "no message"
    message, *others = paragraphs
    for paragraph in others:
        if not message.endswith(":"):
            break
        message = f"{message} {paragraph}"
    return message


def _behind_frames(text: str) -> str:
    """Returns what follows the last frame of a traceback; the last line if there is no frame."""
    lines = text.strip().splitlines()
    frames = list(_FRAME.finditer(text))
    if frames:
        # The code of the frame and the signs below it are indented.
        behind = dropwhile(
            lambda line: line[:1] in ("", " "), text[frames[-1].end() :].splitlines()
        )
        return "\n".join(behind) or lines[-1]
    return lines[-1] if lines else ""


def cause_of(error: BaseException) -> str:
    """Returns what the innermost cause of an exception says, in one line.

    The kind of exception is named where it says nothing, or no more than a name.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ValidationError):
        # Its own text ends on an address, and says the type of the input at length.
        faults = [str(fault["msg"]).removeprefix("Value error, ") for fault in error.errors()]
        return "; ".join(_first_line(fault) for fault in faults)
    line = _first_line(str(error))
    return line if " " in line else f"{type(error).__name__}: {line}".removesuffix(": ")


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def printed_cause(error: BaseException) -> str | None:
    """Returns the last exception that an actor's processes printed, where its own says no more.

    vLLM's engine is a process below the actor: its exception says only that the cause was printed.
    None if the actor is on another node, or its exception says more.
    """
    # Ray's exception has no attribute for the process once it has taken the class of its cause.
    process = re.search(r"pid=(\d+)", str(error))
    if process is None or not re.search(r"(root cause|stack trace) \(?above", str(error)):
        return None
    for file in Path(logs_of_engines()).glob(f"worker-*-{process[1]}.err"):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        if printed := [line for line in lines if re.match(r"[\w.]+(Error|Exception): ", line)]:
            return printed[-1]
    return None
