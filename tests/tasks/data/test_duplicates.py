"""Duplicates: near duplicates are found by their words, and evaluation sets are held out."""

from collections.abc import Iterable

import pytest

from specs.prompts import Message
from tasks.data.candidates import read_source
from tasks.data.duplicates import Evaluations, NearDuplicates
from tasks.data.sources import SourceConfig
from tests.rows import long_text, real


def chat(text: str, *, system: str | None = None) -> list[Message]:
    before: list[Message] = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": text}]


def alike(prompts: Iterable[list[Message]], threshold: float = 0.9) -> list[bool]:
    """Returns for each prompt whether it is a near duplicate of an earlier one."""
    near = NearDuplicates(threshold)
    return [near.has(messages) for messages in prompts]


def shared(held_out: Iterable[list[Message]], prompts: Iterable[list[Message]]) -> list[bool]:
    """Returns for each prompt whether the evaluation set holds it."""
    evaluations = Evaluations()
    for messages in held_out:
        evaluations.add(messages)
    return [evaluations.share(messages) for messages in prompts]


# Near duplicates.


def test_an_edited_copy_is_a_near_duplicate_and_a_short_text_is_not() -> None:
    texts = (long_text(1), long_text(1) + " please", long_text(2), "Hello.", "Hello!", "")
    assert alike(map(chat, texts)) == [False, True, False, False, False, False]


@pytest.mark.parametrize(("threshold", "near_duplicates"), [(1.0, 0), (0.9, 0), (0.6, 40)])
def test_prompts_that_share_a_band_are_compared_with_the_threshold(
    threshold: float, near_duplicates: int
) -> None:
    # The last 22 of 200 words differ: of 218 runs of words in both, 174 are shared, 0.8 of them.
    pairs = [
        (long_text(seed), " ".join([*long_text(seed).split()[:178], long_text(100 + seed, 22)]))
        for seed in range(1, 41)
    ]
    prompts = [chat(text) for pair in pairs for text in pair]
    assert sum(alike(prompts, threshold)) == near_duplicates


def test_questions_that_differ_in_a_sign_are_not_duplicates() -> None:
    assert alike(map(chat, ("What is 3 + 5?", "What is 3 - 5?"))) == [False, False]


def test_case_and_unicode_compatibility_forms_make_no_difference() -> None:
    assert alike(map(chat, ("Where is the ﬁsh?", "where IS the fish?"))) == [False, True]


def test_a_long_system_prompt_that_rows_share_does_not_make_them_alike() -> None:
    prompts = [
        chat("Where is the boat?", system=long_text(1)),
        chat("What is bread?", system=long_text(1)),
        chat("Where is the boat?", system=long_text(2)),
    ]
    assert alike(prompts) == [False, False, False]


def test_edited_copies_of_gsm8k_are_near_duplicates() -> None:
    gsm8k = SourceConfig(name="gsm8k", path=real("gsm8k/test.jsonl"), prompt="question")
    questions = [row.messages[0]["content"] for row in read_source(gsm8k)]
    copies = [question + " Explain." for question in questions]
    flags = alike(map(chat, questions + copies), 0.7)
    assert flags[: len(questions)].count(False) > 1300
    assert flags[len(questions) :].count(True) > 1250


# Evaluation sets.


def test_a_prompt_is_held_out_if_it_is_in_the_set_or_shares_13_words_in_a_row() -> None:
    words = long_text(1, 40).split()
    texts = (
        "“How are you?”",
        "Say this: " + ", ".join(words[5:18]) + " again",
        "Say this: " + ", ".join(words[5:17]) + " again",
        "How are you today?",
    )
    flags = shared([chat("How are you?"), chat(" ".join(words))], map(chat, texts))
    assert flags == [True, True, False, False]


def test_every_turn_of_the_user_is_compared_and_no_other_turn() -> None:
    def turns(first: str, answer: str, system: str = "Be brief.") -> list[Message]:
        return [
            *chat(first, system=system),
            {"role": "assistant", "content": answer},
            {"role": "user", "content": "Good."},
        ]

    prompts = [
        turns("how are  YOU", "Well."),
        turns("Well?", "How are you?"),
        turns("Well?", "Well.", system="How are you?"),
    ]
    assert shared([chat("How are you?")], prompts) == [True, False, False]


def test_a_prompt_without_words_is_compared_by_its_signs() -> None:
    assert shared([chat("?!")], [chat("? !"), chat("?"), chat("Why?!")]) == [True, False, False]


def test_scripts_without_spaces_are_compared_letter_by_letter() -> None:
    text = "今日は天気がとても良いので散歩に行きましょう"
    prompts = [chat("さて、" + text + "か。"), chat("天気は良いですか")]
    assert shared([chat(text)], prompts) == [True, False]


def test_without_evaluation_sets_nothing_is_held_out() -> None:
    assert shared([], [chat("How are you?"), chat("")]) == [False, False]
