"""The words of policies: what they are about, which leave a decision open, which texts are alike.

Everything is read from the words alone, without a model. The lists of words are English; texts in
another language have none of them, and are split into words as that language is.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path

import regex

_DATA = Path(__file__).parent / "wording.toml"
_WORD = regex.compile(r"[\p{L}\p{M}]+(?:['’-][\p{L}\p{M}]+)*")
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")
"""Letters of languages that are written without spaces between words."""
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|`[^`]*`")
_BOLD = re.compile(r"\*\*(?P<phrase>[^*]+)\*\*(?P<colon>:?)")
_BEFORE_A_HEADING = re.compile(r"(?:^|[.!?:;])\s*(?:[-*+|]|\d+[.)])?\s*$")
"""What stands before a bold phrase that opens a line, a list item, a table cell or a sentence."""
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
    return frozenset(_stem(word) for word in words_of(text) if word not in _function_words())


def is_english(text: str) -> bool:
    """Returns True if a fifth of the words of a text are function words of English."""
    words = _WORD.findall(text.lower())[:_MOST_WORDS]
    return 5 * sum(word in _function_words() for word in words) >= len(words) > 0


def words_of(text: str) -> Iterator[str]:
    """Yields the words of a text in lower case, split as its language is."""
    for match in _WORD.finditer(text.lower()):
        if _UNSPACED.search(match[0]):
            from icu4py.breakers import WordBreaker

            yield from WordBreaker(match[0], "und")
        else:
            yield match[0]


def _stem(word: str) -> str:
    return word.removesuffix("s")[:_STEM_LETTERS]


def bold_phrases(text: str) -> list[str]:
    """Returns the phrases between double asterisks that a text uses as terms.

    A phrase without a subject stresses, and one that opens a line or a sentence and ends in a colon
    or a full stop is a heading: "**Be brief.** Say **no** at the **bilge**." → ["bilge"]
    """
    return [
        match["phrase"].strip(" .,:;")
        for line in text.split("\n")
        for match in _BOLD.finditer(line)
        if stems(match["phrase"]) and not _is_heading(line, match)
    ]


def _is_heading(line: str, match: re.Match[str]) -> bool:
    is_first = _BEFORE_A_HEADING.search(line[: match.start()]) is not None
    is_alone = not line[match.end() :].strip()
    return is_first and (is_alone or bool(match["colon"]) or match["phrase"].rstrip()[-1] in ".:!?")


def mentions(text: str, term: str) -> bool:
    """Returns True if a text uses a term, in whatever form its words have.

    ("He admits his intents.", "intent") → True
    """
    wanted = [_stem(word) for word in words_of(term)]
    words = [_stem(word) for word in words_of(text)]
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


_MOST_WORDS = 400
"""Words of a text that tell its language."""

_UNLIKE = 0.6
