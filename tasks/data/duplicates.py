"""Prompts that are alike: near duplicates, and contamination by evaluation sets.

Text is compared case-folded, in Unicode's form NFKC and without invisible characters.
Decontamination compares words alone, so that it errs on the side of leaving out; near duplicates
are compared with every sign, because "3 + 5" and "3 - 5" are not the same question.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from specs.prompts import Message
from tasks.data.candidates import messages_id

_SIMPLE = re.compile(
    "[\0-\xac\xae-\u02ff\u0370-\u0482\u048a-\u052f\u2010-\u2027\u2030-\u205e\uac00-\ud7a3]*"
)
"""Text without marks and invisible characters in scripts with spaces: Latin, Greek, Cyrillic and
Hangul, with their usual signs."""
_SIMPLE_TOKEN = re.compile(r"\w+|[^\w\s]")
_WITH_DICTIONARY = (
    r"\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}ー"
    r"\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}"
)
"""Scripts without spaces for which ICU has dictionaries."""
_WITHOUT_SPACES = rf"{_WITH_DICTIONARY}\p{{Line_Break=SA}}\p{{Line_Break=ID}}"
_TOKEN = rf"""
    [[\p{{L}}\p{{N}}_]--[{_WITHOUT_SPACES}]][[\p{{L}}\p{{N}}\p{{M}}_]--[{_WITHOUT_SPACES}]]*
    | (?P<unspaced>[{_WITH_DICTIONARY}]+)
    | (?=\p{{L}})[{_WITHOUT_SPACES}]\p{{M}}*
    | [^\s\x1c-\x1f]\p{{M}}*
"""
_INVISIBLE = r"[\p{Default_Ignorable_Code_Point}\p{Cf}]"


@cache
def _pattern(text: str) -> Any:
    """Returns a compiled pattern; `re` does not know the properties of Unicode."""
    import regex

    return regex.compile(text, regex.VERBOSE | regex.VERSION1)


def _tokens(text: str) -> list[str]:
    """Returns the words and signs of a text, words as the text's script has them.

    A word is a run of letters, digits and the marks that belong to them. In scripts that are
    written without spaces it is a word of ICU's dictionaries, or one letter where there is none.
    "아이들과 함께" → "아이들과", "함께"; "喜欢苹果!" → "喜欢", "苹果", "!"
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    if _SIMPLE.fullmatch(text):
        return _SIMPLE_TOKEN.findall(text)
    text = _pattern(_INVISIBLE).sub("", text)
    tokens: list[str] = []
    for match in _pattern(_TOKEN).finditer(text):
        tokens += _dictionary_words(match[0]) if match["unspaced"] else [match[0]]
    return tokens


def _dictionary_words(text: str) -> list[str]:
    """Returns the words of a text without spaces.

    A particle or an ending of one Hiragana belongs to the word before it, as in Korean.
    """
    from icu4py.breakers import WordBreaker

    # NFKC takes the vowel AM of Thai and Lao apart, and the dictionaries have it whole.
    text = text.replace("\u0e4d\u0e32", "\u0e33").replace("\u0ecd\u0eb2", "\u0eb3")
    words: list[str] = []
    # The breaker's own texts: its offsets count UTF-16 units.
    for word in WordBreaker(text, "und"):
        if words and len(word) == 1 and "ぁ" <= word <= "ゖ":
            words[-1] += word
        else:
            words.append(word)
    return words


class NearDuplicates:
    """Prompts seen so far, as MinHash signatures in bands; about 6 kB of memory a prompt.

    Prompts that share a band are compared by their whole signatures.
    """

    _NUM_HASHES = 128
    _NUM_WORDS = 5

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHash, MinHashLSH

        self._blank = MinHash(num_perm=self._NUM_HASHES)
        self._threshold = threshold
        # The weights prefer bands that miss few pairs at the threshold; pairs below it are sorted
        # out by the signatures. Above 0.95 a single band would be left, which finds nothing.
        self._bands = MinHashLSH(
            threshold=min(threshold, 0.95), num_perm=self._NUM_HASHES, weights=(0.05, 0.95)
        )
        self._signatures: list[Any] = []

    def has(self, messages: Sequence[Message]) -> bool:
        """Returns whether a prompt like this one was seen; if not, it has been from now on."""
        signature = self._blank.copy()
        shingles = self._shingles(messages)
        # In pieces: every value takes a kilobyte of memory while it is hashed.
        for start in range(0, len(shingles), 4096):
            signature.update_batch(shingles[start : start + 4096])
        values = signature.hashvalues.astype("uint32")
        for index in self._bands.query(signature):
            if (self._signatures[index] == values).mean() >= self._threshold:
                return True
        self._bands.insert(len(self._signatures), signature)
        self._signatures.append(values)
        return False

    def _shingles(self, messages: Sequence[Message]) -> list[bytes]:
        # A long system prompt or history that many rows share must not make them alike, so the
        # messages before the last one are a part of every run of words.
        *before, last = messages
        context = messages_id(before)
        tokens = _tokens(last["content"])
        starts = range(max(1, len(tokens) - self._NUM_WORDS + 1))
        runs = {" ".join(tokens[start : start + self._NUM_WORDS]) for start in starts}
        return [f"{context} {run}".encode() for run in runs]


class Evaluations:
    """Prompts of evaluation sets, which must not be collected."""

    _NUM_WORDS = 13

    def __init__(self) -> None:
        self._exact: set[int] = set()
        self._runs: set[int] = set()

    def add(self, messages: Sequence[Message]) -> None:
        """Adds a prompt of an evaluation set."""
        for turns in _readings(messages):
            self._exact.add(hash(tuple(itertools.chain(*turns))))
            self._runs.update(itertools.chain(*map(self._hashed_runs, turns)))

    def share(self, messages: Sequence[Message]) -> bool:
        """Returns whether the user's words are in an evaluation set, wholly or 13 in a row."""
        return bool(self._exact) and any(map(self._has, _readings(messages)))

    def _has(self, turns: Sequence[Sequence[str]]) -> bool:
        whole = (tuple(itertools.chain(*turns)), *map(tuple, turns))
        if any(hash(words) in self._exact for words in whole):
            return True
        return any(run in self._runs for words in turns for run in self._hashed_runs(words))

    def _hashed_runs(self, words: Sequence[str]) -> Iterator[int]:
        for start in range(len(words) - self._NUM_WORDS + 1):
            yield hash(tuple(words[start : start + self._NUM_WORDS]))


def _readings(messages: Sequence[Message]) -> Iterator[list[list[str]]]:
    """Yields the words of each user turn, or its signs if it has no word.

    An invisible character may stand inside a word or for a space: a chat that has one is read in
    both ways.
    """
    texts = [message["content"] for message in messages if message["role"] == "user"]
    yield list(map(_words, texts))
    spaced = [
        text if _SIMPLE.fullmatch(text) else _pattern(_INVISIBLE).sub(" ", text) for text in texts
    ]
    if spaced != texts:
        yield list(map(_words, spaced))


def _words(text: str) -> list[str]:
    tokens = _tokens(text)
    return [token for token in tokens if token[0].isalnum()] or tokens
