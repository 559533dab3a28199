"""The words of an exception of a library, as a user is told them."""

from typing import ClassVar

import pytest
from ray.exceptions import RayError

from tasks.engine.cluster import message_of

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
