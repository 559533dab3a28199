"""Word problems of arithmetic with their steps: capability data, so that a model goes on to reason
about other things than safety."""

import random
from collections.abc import Iterator
from typing import NamedTuple

_NAMES = ("Ana", "Ben", "Chloe", "Dev", "Elif", "Femi", "Grace", "Hugo", "Iris", "Jonas")
_THINGS = ("apples", "books", "stickers", "marbles", "candles", "tickets", "pens", "shells")
_SEED = 1


class Problem(NamedTuple):
    """A word problem, the steps that solve it, and the number that answers it."""

    question: str
    steps: str
    result: int


def problems(count: int) -> Iterator[Problem]:
    """Yields problems of several kinds in turn; the same ones each time."""
    draw = random.Random(_SEED)
    for number in range(count):
        yield _KINDS[number % len(_KINDS)](draw)


def _gives_away(draw: random.Random) -> Problem:
    name, thing = draw.choice(_NAMES), draw.choice(_THINGS)
    boxes, each = draw.randint(2, 12), draw.randint(3, 20)
    gone = draw.randint(1, boxes * each - 1)
    total = boxes * each
    return Problem(
        f"{name} has {boxes} boxes with {each} {thing} in each. {name} gives away {gone} {thing}. "
        f"How many {thing} are left?",
        f"There are {boxes} * {each} = {total} {thing}. Then {total} - {gone} = {total - gone}.",
        total - gone,
    )


def _earns(draw: random.Random) -> Problem:
    name, pay = draw.choice(_NAMES), draw.randint(8, 30)
    first, second = draw.randint(1, 9), draw.randint(1, 9)
    hours = first + second
    return Problem(
        f"{name} earns ${pay} an hour. {name} works {first} hours on Monday and {second} hours on "
        "Tuesday. How many dollars does that make?",
        f"That is {first} + {second} = {hours} hours. {hours} * {pay} = {hours * pay}.",
        hours * pay,
    )


def _shares(draw: random.Random) -> Problem:
    name, thing = draw.choice(_NAMES), draw.choice(_THINGS)
    friends, each, kept = draw.randint(2, 9), draw.randint(2, 15), draw.randint(1, 10)
    total = friends * each + kept
    return Problem(
        f"{name} has {total} {thing}, keeps {kept} and shares the rest equally among {friends} "
        f"friends. How many {thing} does each friend get?",
        f"{total} - {kept} = {total - kept} are shared. {total - kept} / {friends} = {each}.",
        each,
    )


def _doubles(draw: random.Random) -> Problem:
    one, other = draw.sample(_NAMES, 2)
    thing, start, more = draw.choice(_THINGS), draw.randint(2, 40), draw.randint(1, 20)
    twice = 2 * start
    return Problem(
        f"{one} has {start} {thing}. {other} has {more} more than twice as many. How many {thing} "
        "do they have together?",
        f"Twice {start} is {twice}. {other} has {twice} + {more} = {twice + more}. Together they "
        f"have {start} + {twice + more} = {start + twice + more}.",
        start + twice + more,
    )


_KINDS = (_gives_away, _earns, _shares, _doubles)
