"""Of a wrapped exception the innermost cause is told, in one line."""

from itertools import pairwise

import pytest
from pydantic import ValidationError

from tasks.engine.faults import cause_of
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
