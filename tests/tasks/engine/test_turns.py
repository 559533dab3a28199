"""Chats are written in the turns that a model's chat template can take."""

from collections.abc import Sequence

import pytest

from specs.prompts import Message
from tasks.engine.chat_template import ChatError, ChatTemplate
from tasks.engine.turns import TurnRules, TurnsError, write
from tests.tasks.engine.byte_tokenizers import byte_tokenizer

EACH = "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>' }}"
END = "{% endfor %}{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
ROOMY = EACH + END
NO_SYSTEM = "{{ raise_exception('no system') if messages[0].role == 'system' }}" + ROOMY
DROPS_SYSTEM = "{% for m in messages if m.role != 'system' %}" + EACH.partition("%}")[2] + END
DROPS_SYSTEM_LATER = (
    "{% for m in messages if m.role != 'system' or messages | length < 3 %}"
    + EACH.partition("%}")[2]
    + END
)
ALTERNATES = (
    "{% for m in messages %}{% if loop.index0 and m.role == messages[loop.index0 - 1].role %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}" + ROOMY
)
GEMMA = NO_SYSTEM + ALTERNATES.replace(ROOMY, "")
# The system turn counts as the first of two user turns.
STRICT = (
    "{% for m in messages %}{% if (m.role == 'assistant') != (loop.index0 % 2 == 1) %}"
    "{{ raise_exception('user and assistant must alternate') }}{% endif %}{% endfor %}" + ROOMY
)


class Render:
    """Writes turns by a template, as a model's tokenizer does."""

    def __init__(self, template: str) -> None:
        self.tokenizer = byte_tokenizer(["<|im_start|>", "<|im_end|>"], template=template)

    def __call__(self, turns: Sequence[Message]) -> str:
        text = self.tokenizer.apply_chat_template(
            list(turns), tokenize=False, add_generation_prompt=True
        )
        return str(text)


def turns_of(*pairs: str) -> list[Message]:
    """Returns turns from such as `user: a`."""
    split = [pair.partition(": ") for pair in pairs]
    return [{"role": role, "content": content} for role, _, content in split]


CHAT = turns_of("system: s", "user: a", "user: b", "assistant: c", "user: d")


@pytest.mark.parametrize(
    ("template", "takes_system", "takes_repeats", "expected"),
    [
        (ROOMY, True, True, CHAT),
        (NO_SYSTEM, False, True, turns_of("user: s\n\na", "user: b", "assistant: c", "user: d")),
        (DROPS_SYSTEM, False, True, turns_of("user: s\n\na", "user: b", "assistant: c", "user: d")),
        (
            DROPS_SYSTEM_LATER,
            False,
            True,
            turns_of("user: s\n\na", "user: b", "assistant: c", "user: d"),
        ),
        (ALTERNATES, True, False, turns_of("system: s", "user: a\n\nb", "assistant: c", "user: d")),
        (GEMMA, False, False, turns_of("user: s\n\na\n\nb", "assistant: c", "user: d")),
        (STRICT, False, False, turns_of("user: s\n\na\n\nb", "assistant: c", "user: d")),
    ],
)
def test_template_is_given_the_turns_that_it_can_write(
    template: str, takes_system: bool, takes_repeats: bool, expected: list[Message]
) -> None:
    render = Render(template)
    rules = TurnRules.of(render)
    assert (rules.takes_system, rules.takes_repeats) == (takes_system, takes_repeats)
    assert rules.apply(CHAT) == expected
    text = write(render, rules.apply(CHAT))
    assert all(turn["content"] in text for turn in CHAT)
    # What a template can take is given to it as it is.
    assert (rules.apply(CHAT) == CHAT) is (takes_system and takes_repeats)


def test_system_text_alone_or_before_an_answer_is_not_lost() -> None:
    rules = TurnRules(takes_system=False)
    assert rules.apply(turns_of("system: s")) == turns_of("user: s")
    chat = turns_of("system: s", "assistant: a", "user: b", "system: t")
    assert rules.apply(chat) == turns_of("assistant: a", "user: s\n\nt\n\nb")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no chats') }}", "cannot write the turns user: no chats; set"),
        ("Hello.", "cannot write the turns user: it leaves out the user turn"),
        (
            "{{ messages[-1].content }}",
            "turns user, assistant, user: it leaves out the user turn 'standinfirst'",
        ),
    ],
)
def test_template_that_cannot_write_a_chat_is_told(template: str, message: str) -> None:
    with pytest.raises(TurnsError, match=message):
        TurnRules.of(Render(template))


def test_turn_that_a_template_leaves_out_or_refuses_is_told() -> None:
    drops = Render("{% for m in messages if m.role != 'tool' %}" + EACH.partition("%}")[2] + END)
    chat = turns_of("user: a", "tool: result of a call", "user: b")
    with pytest.raises(TurnsError, match="leaves out the tool turn 'result of a call'"):
        write(drops, chat)
    # Changed white space is not a loss.
    trims = Render(ROOMY.replace("m.content", "m.content.split() | join(' ')"))
    assert "one two" in write(trims, turns_of("user: one\n two "))


def test_prompt_of_a_student_has_the_turns_of_its_template() -> None:
    chats = ChatTemplate(Render(GEMMA).tokenizer)
    text = chats.prompt_text(turns_of("system: s", "user: a", "user: b"))
    assert text == "<|im_start|>user\ns\n\na\n\nb<|im_end|><|im_start|>assistant\n"
    roomy = ChatTemplate(Render(ROOMY).tokenizer)
    assert roomy.shown(CHAT) == CHAT
    with pytest.raises(ChatError, match="leaves out the user turn 'standinfirst'"):
        last = "{% set messages = messages[-2:] %}"
        ChatTemplate(Render(last + ROOMY).tokenizer)
