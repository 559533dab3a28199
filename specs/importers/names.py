"""Titles of other documents → ids and titles that a pack can have."""

import re
import unicodedata
from collections.abc import Container
from itertools import chain, count, product
from string import ascii_uppercase

from specs.policy import NO_CATEGORY

_TITLE_WORDS = 8
_NUMBERS = 99
"""The most that a rule's id can have after its letters."""


def category_of(title: str) -> str:
    """Returns a category's id for a title, without the number that it may begin with.

    "Spam Policy (#SP)" → "spam_policy_sp", "2.1 Tall hedges" → "tall_hedges"
    """
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", re.sub(r"^[\W\d]+(?=.*[a-z])", "", plain))
    name = "_".join(words) or "policy"
    return f"{name}_policy" if name == NO_CATEGORY else name


def unique(name: str, taken: Container[str]) -> str:
    """Returns the name, with the first free number from 2 on if it is taken."""
    numbered = (f"{name}_{number}" for number in count(2))
    return next(x for x in chain([name], numbered) if x not in taken)


def prefix_of(category: str) -> str:
    """Returns the letters that the rule ids of a category begin with.

    "spam_policy_sp" → "SPS"
    """
    words = re.findall(r"[a-z]+", category.lower()) or ["p"]
    return ("".join(word[0] for word in words[:3]) if len(words) > 1 else words[0][:2]).upper()


def free_id(prefix: str, taken: Container[str], first: int = 1) -> str:
    """Returns the first rule id that is free, beginning with these letters and this number; with
    other letters once all of their numbers are taken."""
    letters = chain([prefix], map("".join, product(ascii_uppercase, repeat=3)))
    ids = (f"{x}{(first - 1 + n) % _NUMBERS + 1}" for x in letters for n in range(_NUMBERS))
    return next(rule_id for rule_id in ids if rule_id not in taken)


def rule_title(text: str) -> str:
    """Returns a rule's title made of the first words of its text."""
    words = re.split(r"(?<=\w)[:;.]\s|\s\(", " ".join(text.split()), maxsplit=1)[0].split()
    return " ".join(words[:_TITLE_WORDS]).rstrip(" ,.;:") or "Rule"
