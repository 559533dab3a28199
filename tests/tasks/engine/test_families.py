"""Every reasoning parser of vLLM is a family whose replies can be split, or is refused."""

import re
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from specs.replies import THINK, Marks, ReplyStatus
from tasks.engine.families import FAMILIES, REFUSED, marks_of, require_marks
from tasks.engine.requests import EngineConfig
from tasks.engine.splitter import ReplySplitter
from tests.tasks.engine.byte_tokenizers import byte_tokenizer

OK, MALFORMED, UNCLOSED = ReplyStatus.OK, ReplyStatus.MALFORMED, ReplyStatus.UNCLOSED
TOKEN = re.compile(r"<[^<>]+>|\[[^\[\]]+\]")
every_family = pytest.mark.parametrize("name", sorted(FAMILIES))


def tokens_of(marks: Marks) -> list[str]:
    return TOKEN.findall(f"{marks.opening}{marks.closing}{''.join(marks.strays)}")


@cache
def tokenizer_of(marks: Marks) -> Any:
    return byte_tokenizer([*tokens_of(marks), "<turn|>"])


def split(marks: Marks, text: str, *, ending: str = "") -> tuple[ReplyStatus, str, str]:
    tokenizer = tokenizer_of(marks)
    ids = tokenizer.encode(f"{text}<turn|>", add_special_tokens=False)
    reply = ReplySplitter(tokenizer, end_ids={ids[-1]}, marks=marks).split(ids, ending=ending)
    return reply.status, reply.reasoning, reply.answer


@every_family
def test_no_reply_hides_visible_text_or_answers_with_reasoning(name: str) -> None:
    marks = FAMILIES[name]
    block = f"{marks.opening}a{marks.closing}"
    assert split(marks, f"{block}b") == (OK, "a", "b")
    assert split(marks, f"a{marks.closing}b", ending=f"x\n{marks.opening}") == (OK, "a", "b")
    for text in (
        f"visible {block}b",
        f"{block}b{block}c",
        f"{block}b{marks.closing}c",
        f"{block}b{marks.opening}c",
        f"{marks.opening}{block}b",
        f"a{marks.closing}b",
        f"{block}b<think>c",
    ):
        status, _, answer = split(marks, text)
        assert (status, answer) == (MALFORMED, ""), text
    assert split(marks, f"{block} \n") == (ReplyStatus.EMPTY_ANSWER, "a", "")
    assert split(marks, f"{marks.opening} {marks.closing}b") == (
        ReplyStatus.EMPTY_REASONING,
        "",
        "b",
    )
    assert split(marks, "no marks") == (UNCLOSED, "no marks", "")
    assert split(marks, f"{marks.opening}a") == (UNCLOSED, "a", "")


@every_family
@given(data=st.data())
def test_answer_is_all_that_follows_the_first_closing_mark(name: str, data: st.DataObject) -> None:
    marks = FAMILIES[name]
    pieces = [marks.opening, marks.closing, *marks.strays, "<think>", "</think>", "a", " ", "\n"]
    text = "".join(data.draw(st.lists(st.sampled_from(pieces), max_size=8)))
    prefilled = data.draw(st.booleans())
    status, reasoning, answer = split(marks, text, ending=marks.opening if prefilled else "")
    if not answer:
        return
    whole = text if prefilled else text.lstrip().removeprefix(marks.opening)
    hidden, _, visible = whole.partition(marks.closing)
    assert prefilled or text.lstrip().startswith(marks.opening)
    assert (reasoning, answer) == (hidden.strip(), visible.strip())
    assert not marks.any_in(f"{reasoning} {answer}")
    assert status in (OK, ReplyStatus.EMPTY_REASONING)


def test_channel_that_is_not_the_reasoning_one_is_malformed() -> None:
    gemma = FAMILIES["gemma4"]
    assert split(gemma, "<|channel>thought\na\n<channel|>b") == (OK, "a", "b")
    assert split(gemma, "<|channel>final\na<channel|>b")[0] is MALFORMED
    assert split(gemma, "b", ending="<|channel>thought\n<channel|>") == (
        ReplyStatus.EMPTY_REASONING,
        "",
        "b",
    )


def test_text_that_a_family_puts_around_its_answer_is_no_part_of_it() -> None:
    ernie = FAMILIES["ernie45"]
    assert split(ernie, "<think>a</think>\n<response>\nb\n</response>\n") == (OK, "a", "b")
    assert split(ernie, "<think>a</think>b</response>") == (OK, "a", "b</response>")


def test_marks_follow_the_options_and_the_tokens_of_a_model() -> None:
    assert marks_of(None) == THINK
    low = marks_of("k2_horizon", chat_template_kwargs={"reasoning_effort": "low"})
    assert (low.opening, low.closing) == ("<ifm|think_faster>", "</ifm|think_faster>")
    suffixed = marks_of("hy_v4", vocabulary=["<a>", "</think:x>", "<think:x>"])
    assert (suffixed.opening, suffixed.closing) == ("<think:x>", "</think:x>")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"reasoning_parser": name}, "cannot tell which tokens are the answer; use one of")
          for name in REFUSED),
        ({"reasoning_parser": "mistrall"}, "parser 'mistrall'; did you mean 'mistral'? use one"),
        ({"reasoning_parser": ""}, "no reasoning parser ''; use one of deepseek_r1"),
        (
            {"reasoning_parser": "k2_horizon", "chat_template_kwargs": {"reasoning_effort": "x"}},
            "'x', for which k2_horizon has no marks: use one of high, medium, low",
        ),
        ({"engine_args": {"max_model_len": 5}}, "set engine.max_model_len instead"),
    ],
)  # fmt: skip
def test_parser_that_cannot_split_replies_is_refused_with_those_that_can(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        EngineConfig(**options)


def test_family_whose_marks_the_tokenizer_lacks_is_refused() -> None:
    mistral = FAMILIES["mistral"]
    require_marks("mistral", mistral, tokens_of(mistral))
    require_marks("gemma4", FAMILIES["gemma4"], ["<|channel>", "<channel|>"])
    require_marks("olmo3", THINK, [])
    with pytest.raises(ValueError, match=r"looks for token '\[/THINK\]', which the model's"):
        require_marks("mistral", mistral, ["[THINK]"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_declared_families_are_those_of_vllm_and_split_as_it_does() -> None:
    from vllm.reasoning import ReasoningParserManager

    assert {*FAMILIES, *REFUSED} == {*ReasoningParserManager.lazy_parsers}
    thinks = {"thinking": True, "enable_thinking": True, "reasoning_effort": "high"}
    for name in sorted(FAMILIES.keys() - {"olmo3"}):
        marks = marks_of(name)
        # Tokens that some parsers ask for beside the marks.
        tokenizer = byte_tokenizer([*tokens_of(marks), "<assistant>", "[TOOL_CALLS]", "<eos>"])
        make = ReasoningParserManager.get_reasoning_parser(name)
        parser = make(tokenizer, chat_template_kwargs=dict(thinks))
        assert marks.opening.startswith(parser.reasoning_start_str), name
        assert marks.closing == parser.reasoning_end_str, name
        reply = f"{marks.opening}a{marks.closing}b"
        ids = tokenizer.encode(reply, add_special_tokens=False)
        assert parser.is_reasoning_end(ids), name
