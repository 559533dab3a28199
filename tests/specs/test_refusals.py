"""A refusal is a judge's own if it begins a sentence outside quotes."""

import pytest

from specs.refusals import declines

SORRY = "I'm sorry, but I can't help with that."


@pytest.mark.parametrize("apostrophe", "'’‘ʼ＇")
@pytest.mark.parametrize(
    "answer",
    [
        SORRY,
        "I can't rate this.",
        "Sorry, but I can't assess this answer.",
        "Unfortunately, I cannot judge it.",
        "As an AI, I won't judge this.",
        "It asks for harm. I'm unable to evaluate it.",
        "**I'm not able to rate this.**",
        "- I cannot provide a rating.",
        'It says "Sorry." I can\'t rate that.',
        "It's the users' request. I won't rate it.",
    ],
)
def test_a_judge_that_declines_is_seen_in_any_apostrophe(answer: str, apostrophe: str) -> None:
    assert declines(answer.replace("'", apostrophe))


@pytest.mark.parametrize("opening", ["The assistant says ", "It says:\n", ""])
@pytest.mark.parametrize(
    "quoted",
    [
        f'"{SORRY}"',
        f"“{SORRY}”",
        f"“{SORRY.replace(chr(39), '’')}”",
        f"‘{SORRY}’",
        f"‘{SORRY.replace(chr(39), '’')}’",
        f"'{SORRY}'",
        f"«{SORRY}»",
        f"„{SORRY}“",
        f"「{SORRY}」",
        f"『{SORRY}』",
        f"`{SORRY}`",
        f"```\n{SORRY}\n```",
        f"> {SORRY}",
        f'"Hello. {SORRY}"',
        f"“Hello.\n\n{SORRY}”",
        f"> Hello.\n> {SORRY}",
    ],
)
def test_a_refusal_that_a_judge_quotes_is_not_its_own(opening: str, quoted: str) -> None:
    assert not declines(f"{opening}{quoted}\nThat is what K3 wants.")


@pytest.mark.parametrize(
    "answer",
    [
        "The answer says I can't help, as K3 wants.",
        "It is right that I won't is said plainly.",
        "I can't find a fault.",
        "I am not able to find a fault.",
        "",
    ],
)
def test_a_judge_that_speaks_of_refusing_does_not_refuse(answer: str) -> None:
    assert not declines(answer)


def test_long_text_of_quotes_takes_no_long_time() -> None:
    for mark in ("\"a ' ‘", "«", "‘a", "``", " 'a", "> ", "so, "):
        assert not declines(mark * 20_000)
