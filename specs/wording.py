"""The words of policies: what they are about, which leave a decision open, which texts are alike.

Everything is read from the words alone, in English, without a model.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path

_DATA = Path(__file__).parent / "wording.toml"
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|`[^`]*`")
_BOLD = re.compile(r"\*\*(?P<phrase>[^*]+)\*\*")
_STEM_LETTERS = 5
"""Letters by which words of one stem are told: `renewals` and `renewed` share `renew`."""


@cache
def _vague() -> Mapping[str, str]:
    return dict(tomllib.loads(_DATA.read_text(encoding="utf-8"))["vague"])


@cache
def _function_words() -> frozenset[str]:
    data = tomllib.loads(_DATA.read_text(encoding="utf-8"))
    return frozenset(data["function_words"]["words"].split())


@cache
def _vague_pattern() -> re.Pattern[str]:
    # The longest first: "where appropriate" is told, not "appropriate".
    phrases = sorted(map(re.escape, _vague()), key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(phrases)})(?![\w-])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Vague:
    """A word that leaves a decision open, and why it does."""

    word: str
    reason: str


def vague_words(text: str) -> Iterator[Vague]:
    """Yields the vague words of a text, each once; what is quoted is somebody else's word."""
    told = set()
    for match in _vague_pattern().finditer(_QUOTED.sub(" ", " ".join(text.split()))):
        word = match[0].lower()
        if word not in told:
            told.add(word)
            yield Vague(word, _vague()[word])


def stems(text: str) -> frozenset[str]:
    """Returns the stems of the words that say what a text is about.

    "what a late return costs" → {"late", "retur", "cost"}
    """
    words = (match[0].lower() for match in _WORD.finditer(text))
    return frozenset(_stem(word) for word in words if word not in _function_words())


def _stem(word: str) -> str:
    return word.removesuffix("s")[:_STEM_LETTERS]


def bold_phrases(text: str) -> list[str]:
    """Returns the phrases between double asterisks that hold a word with a subject."""
    phrases = (match["phrase"].strip(" .,:;") for match in _BOLD.finditer(text))
    return [phrase for phrase in phrases if stems(phrase)]


def mentions(text: str, term: str) -> bool:
    """Returns True if a text uses a term, in whatever form its words have.

    ("He admits his intents.", "intent") → True
    """
    wanted = [_stem(word.lower()) for word in _WORD.findall(term)]
    words = [_stem(word.lower()) for word in _WORD.findall(text)]
    size = len(wanted)
    return any(words[start : start + size] == wanted for start in range(len(words) - size + 1))


def likeness(one: str, other: str) -> float:
    """Returns how alike the words of two texts are, from 0 to 1, the order counted."""
    words, others = one.lower().split(), other.lower().split()
    matcher = SequenceMatcher(a=words, b=others, autojunk=False)
    # The exact ratio takes quadratic time, and most pairs have few words in common.
    if matcher.quick_ratio() < _UNLIKE:
        return 0.0
    return matcher.ratio()


_UNLIKE = 0.6
