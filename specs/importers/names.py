"""Titles of other documents → ids and titles that a pack can have."""

import re
import unicodedata

from specs.policy import NO_CATEGORY

_TITLE_WORDS = 8


def category_of(title: str) -> str:
    """Returns a category's id for a title.

    "Spam Policy (#SP)" → "spam_policy_sp"
    """
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    words = "_".join(re.findall(r"[a-z0-9]+", plain.lower())) or "policy"
    return f"{words}_policy" if words == NO_CATEGORY else words


def prefix_of(category: str) -> str:
    """Returns the letters that the rule ids of a category begin with.

    "spam_policy_sp" → "SPS"
    """
    words = re.findall(r"[a-z]+", category) or ["p"]
    return ("".join(word[0] for word in words[:3]) if len(words) > 1 else words[0][:2]).upper()


def rule_title(text: str) -> str:
    """Returns a rule's title made of the first words of its text."""
    words = re.split(r"(?<=\w)[:;.]\s|\s\(", " ".join(text.split()), maxsplit=1)[0].split()
    return " ".join(words[:_TITLE_WORDS]).rstrip(" ,.;:") or "Rule"
