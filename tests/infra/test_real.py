"""The real chain: what it needs is told, and its own data are what they say."""

import pytest

from infra import smollm2
from infra.real import arithmetic, thoughts
from specs.exact_match import exact_match
from specs.stances import stance


def test_absent_package_of_the_weights_is_told_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(smollm2, "_PACKAGES", ("no_such_weights",))
    with pytest.raises(smollm2.PackageMissing, match="no package no_such_weights, from") as caught:
        smollm2.weights_path()
    assert "\n" not in str(caught.value)


def test_look_alikes_help_and_name_the_sense_of_their_request() -> None:
    senses = {request.prompt: request.why for request in thoughts.requests("lookalikes")}
    traces = list(thoughts.lookalikes())
    assert len({trace.prompt for trace in traces}) == len(traces) > 600
    for trace in traces:
        assert senses[trace.prompt] in trace.reasoning
        assert stance(trace.answer) == "helps", trace.prompt


def test_contrasts_refuse_what_no_look_alike_asks() -> None:
    harmless = {request.prompt for request in thoughts.requests("lookalikes")}
    contrasts = list(thoughts.contrasts())
    assert len({trace.prompt for trace in contrasts}) == len(contrasts) > 400
    assert harmless.isdisjoint(trace.prompt for trace in contrasts)
    assert {stance(trace.answer) for trace in contrasts} == {"refuses"}


def test_word_problems_have_the_answers_that_their_steps_end_on() -> None:
    problems = list(arithmetic.problems(200))
    assert problems == list(arithmetic.problems(200))
    for problem in problems:
        assert exact_match(problem.steps, str(problem.result)) == 1
