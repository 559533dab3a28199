"""Of a wrapped exception the innermost cause is told, in one line."""

from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import ValidationError
from ray.exceptions import RayError

from tasks.engine import faults
from tasks.engine.faults import cause_of, message_of, printed_cause
from tasks.engine.requests import EngineConfig, Sampling


def wrapped(*errors: BaseException) -> BaseException:
    """Returns the first error, raised from the second, and so on."""
    for outer, inner in pairwise(errors):
        outer.__cause__ = inner
    return errors[0]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("the disk is full\nat /work\n"), "the disk is full"),
        (wrapped(RuntimeError("a b"), OSError("c d"), ValueError("e f\n g")), "e f"),
        (KeyError("name"), "KeyError: 'name'"),
        (NotImplementedError(), "NotImplementedError"),
        (wrapped(RuntimeError("outer words"), TimeoutError()), "TimeoutError"),
    ],
)
def test_innermost_cause_is_one_line(error: BaseException, words: str) -> None:
    assert cause_of(error) == words


def test_settings_that_are_refused_are_told_without_their_input() -> None:
    with pytest.raises(ValidationError) as caught:
        EngineConfig(reasons="prompted", reasoning_parser="qwen3")
    assert cause_of(caught.value).startswith("reasons is 'prompted' and")
    with pytest.raises(ValidationError) as caught:
        Sampling(temperature=9, top_p=0)
    assert cause_of(caught.value) == (
        "Input should be less than or equal to 2; Input should be greater than 0"
    )


UNSAVED = """GenerationConfig is invalid:\x20
- `temperature`: `do_sample` is not set to `True`.
- `top_p`: `do_sample` is not set to `True`.

Fix these issues to save the configuration."""
SAID = (
    "GenerationConfig is invalid: - `temperature`: `do_sample` is not set to `True`. "
    "- `top_p`: `do_sample` is not set to `True`."
)


class FromWorker(RayError):
    """An exception of Ray with the text of what a worker raised."""

    text: ClassVar[str] = f"""ray::train() (pid=7, ip=127.0.0.1)
  File "worker.py", line 3, in train
    model.save_pretrained(folder)
    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
ValueError: {UNSAVED}"""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError(UNSAVED), SAID),
        (FromWorker(FromWorker.text), f"ValueError: {SAID}"),
        (
            RayError("The actor died.\n\tclass_name: It\nIts process was killed."),
            "Its process was killed.",
        ),
        (
            OSError("Cannot load it:\n\n  no such file\n\nSee the manual."),
            "Cannot load it: no such file",
        ),
        (ValueError(), "no message"),
        (RayError(""), "no message"),
    ],
)
def test_message_is_the_cause_and_no_line_of_advice(error: BaseException, words: str) -> None:
    assert message_of(error) == words


RAISED = (
    "\x1b[36mray::VLLMEngine.start()\x1b[39m (pid=77, ip=127.0.0.1)\n"
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
)
PRINTED = """\
INFO loading
ValueError: an earlier fault
Traceback (most recent call last):
  File "weight_utils.py", line 1163, in safetensors_weights_iterator
safetensors._safetensors_rust.SafetensorError: Error while deserializing header: file not whole
nanobind: leaked 3 types!
"""


@pytest.mark.parametrize(
    ("said", "process", "cause"),
    [
        (RAISED, 77, "safetensors._safetensors_rust.SafetensorError: Error while deserializing"),
        (RAISED, 78, None),
        ("(pid=77)\nValueError: max_model_len is too large", 77, None),
    ],
    ids=["printed", "on another node", "said"],
)
def test_cause_that_an_engine_only_printed_is_found(
    said: str, process: int, cause: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "logs_of_engines", lambda: str(tmp_path))
    (tmp_path / f"worker-abc-ffffffff-{process}.err").write_text(PRINTED)
    found = printed_cause(RuntimeError(said))
    assert found is cause is None or (found and cause and found.startswith(cause))
