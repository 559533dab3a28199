"""Errors of a command: one sentence, the cause of what libraries wrapped, a log with the rest."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from flows import errors
from flows.errors import joined_lines, tell
from flows.recipe import RecipeError, load_recipe
from tasks.engine.requests import EngineError
from tasks.stage import StageError
from warehouse.home import ShardError


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(errors.tempfile, "tempdir", str(tmp_path))
    errors.log_path.cache_clear()
    yield
    errors.log_path.cache_clear()


def raised(error: BaseException) -> BaseException:
    """The error with a traceback, as if Precept's own code had raised it."""
    try:
        raise error
    except BaseException as seen:
        return seen


def wrapped(outer: BaseException, inner: BaseException, link: str) -> BaseException:
    setattr(outer, link, inner)
    return raised(outer)


def wrapping(package: str) -> type[Exception]:
    """An exception of a package that wraps others."""
    return type("TaskError", (RuntimeError,), {"__module__": f"{package}.exceptions"})


@pytest.mark.parametrize(
    ("error", "words", "code"),
    [
        (ValueError("judge.k is unknown"), "judge.k is unknown", 2),
        (ShardError("another schema"), "another schema", 2),
        (
            FileNotFoundError(2, "No such file", "a.csv"),
            "a.csv: no such file; mend it, or name another place",
            2,
        ),
        (EngineError("no engine for m: out of memory"), "no engine for m: out of memory", 1),
        (StageError("most rows are errors"), "most rows are errors", 1),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device", 1),
        (KeyError("run_id"), "KeyError: 'run_id'", 1),
        (AssertionError(), "AssertionError", 1),
        (ValueError("one\n\ntwo;\n three"), "one; two; three", 2),
        (duckdb.CatalogException("Catalog Error: no table x"), "Catalog Error: no table x", 2),
    ],
    ids=repr,
)
def test_error_is_told_in_one_line_with_its_exit_code(
    error: Exception, words: str, code: int
) -> None:
    told = tell(raised(error))
    sentence = told.sentence.split("; the full error is in ")[0]
    assert (sentence, told.exit_code) == (f"precept: {words}", code)
    assert "\n" not in told.sentence


@pytest.mark.parametrize("link", ["cause", "__cause__", "_base_exc"])
@pytest.mark.parametrize("package", ["ray", "prefect", "vllm"])
def test_cause_of_what_a_library_wrapped_is_told(package: str, link: str) -> None:
    inner = wrapped(wrapping(package)("(pid=7) Traceback …"), EngineError("out of memory"), link)
    told = tell(wrapped(wrapping(package)("task failed"), inner, link))
    assert told.sentence.startswith("precept: out of memory; the full error is in ")
    assert told.exit_code == 1


def test_cause_in_a_group_and_by_worker_is_told() -> None:
    group = ExceptionGroup("2 faults", [StageError("the disk is full"), ValueError("later")])
    assert "precept: the disk is full" in tell(raised(group)).sentence
    by_worker = wrapping("ray")("2 workers failed")
    by_worker.worker_failures = {0: OSError(28, "No space left")}  # type: ignore[attr-defined]
    assert "precept: [Errno 28] No space left" in tell(raised(by_worker)).sentence


def test_own_words_are_kept_before_what_they_were_raised_from() -> None:
    error = wrapped(ValueError("no data set x; give its path"), TimeoutError("read"), "__cause__")
    assert tell(error).sentence.startswith("precept: no data set x; give its path")


def test_mistake_that_precept_found_needs_no_log(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as seen:
        load_recipe("habour")
    told = tell(seen.value)
    assert told.sentence == f"precept: {seen.value}" and told.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_traceback_stands_in_the_log_that_is_told() -> None:
    told = tell(raised(KeyError("run_id")))
    path = Path(told.sentence.rsplit(" ", 1)[1])
    text = path.read_text()
    assert "Traceback (most recent call last)" in text and "in raised" in text
    assert (path.stat().st_mode & 0o077, path.parent.stat().st_mode & 0o077)[1] == 0


def test_value_error_of_a_library_is_logged() -> None:
    with pytest.raises(ValueError) as seen:
        json.loads("{")
    assert "the full error is in" in tell(seen.value).sentence


def test_query_is_not_repeated_and_of_a_traceback_the_end_is_told() -> None:
    with pytest.raises(duckdb.Error) as seen:
        duckdb.sql("selec 1")
    assert joined_lines(str(seen.value)) == 'Parser Error: syntax error at or near "selec"'
    trace = 'Traceback (most recent call last):\n  File "x", line 1\nOSError: the store hung up'
    assert joined_lines(trace) == "OSError: the store hung up"


NOISE = """
import ctypes, logging, os, sys, threading, warnings
from flows import errors
with errors.libraries_logged():
    os.write(2, b"native\\n")
    os.system("echo child >&2")
    warnings.warn("old")
    logging.getLogger("ray.train").error("stray")
    thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()
    class Late:
        def __del__(self): raise KeyError("ignored")
    Late()
    print("precept: mine", file=sys.stderr)
    {more}
"""


@pytest.mark.parametrize("fails", [False, True])
def test_noise_of_libraries_goes_to_the_log_which_stays_if_it_is_told(
    fails: bool, tmp_path: Path
) -> None:
    more = "print(errors.tell(RuntimeError('broken')).sentence)" if fails else "pass"
    ended = subprocess.run(
        [sys.executable, "-c", NOISE.format(more=more)],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0
    assert ended.stderr == "precept: mine\n"
    logs = list(tmp_path.glob("precept-*/*.log"))
    assert len(logs) == fails
    if fails:
        text = logs[0].read_text()
        assert all(word in text for word in ("native", "child", "old", "stray", "ZeroDivision"))
        assert "ignored" in text and "RuntimeError: broken" in text
        assert str(logs[0]) in ended.stdout
