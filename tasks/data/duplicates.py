"""Prompts that are alike: near duplicates of each other, and what evaluation sets hold.

Text is compared in lower case and without marks of form. How two texts are alike is asked in two
ways: decontamination looks at words only, so that it rather drops too much, near duplicates at
every sign, since "3 + 5" and "3 - 5" are not the same question.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from specs.prompts import Message
from tasks.data.candidates import messages_id

_IDEOGRAPHIC = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(rf"[{_IDEOGRAPHIC}]|[^\W{_IDEOGRAPHIC}]+|[^\w\s]")
"""A word, a sign, or one letter of a script that is written without spaces."""


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


class NearDuplicates:
    """Prompts seen so far, as MinHash signatures in bands.

    Takes about 6 kB of memory a prompt. What shares a band is compared by its whole signature.
    """

    _NUM_HASHES = 128
    _NUM_WORDS = 5

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHash, MinHashLSH

        self._blank = MinHash(num_perm=self._NUM_HASHES)
        self._threshold = threshold
        # Bands that miss few pairs at the threshold; the pairs below it that they let through
        # are sorted out by the signatures. Above 0.95 there would be but one band, which is none.
        self._bands = MinHashLSH(
            threshold=min(threshold, 0.95), num_perm=self._NUM_HASHES, weights=(0.05, 0.95)
        )
        self._signatures: list[Any] = []

    def has(self, messages: Sequence[Message]) -> bool:
        """Whether a prompt like this one was seen; if not, it is from now on."""
        signature = self._blank.copy()
        shingles = self._shingles(messages)
        # In pieces, because every value takes a kilobyte while it is hashed.
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
        # A long system prompt or history that many rows share must not make them alike, so
        # what stands before the last message is part of every run of words.
        *before, last = messages
        context = messages_id(before)
        tokens = _tokens(last["content"])
        starts = range(max(1, len(tokens) - self._NUM_WORDS + 1))
        runs = {" ".join(tokens[start : start + self._NUM_WORDS]) for start in starts}
        return [f"{context} {run}".encode() for run in runs]


class Evaluations:
    """The prompts of evaluation sets, which must not be collected."""

    _NUM_WORDS = 13

    def __init__(self) -> None:
        self._exact: set[int] = set()
        self._runs: set[int] = set()

    def add(self, messages: Sequence[Message]) -> None:
        """Takes up a prompt of an evaluation set."""
        turns = _user_turns(messages)
        self._exact.add(hash(tuple(itertools.chain(*turns))))
        self._runs.update(itertools.chain(*map(self._hashed_runs, turns)))

    def share(self, messages: Sequence[Message]) -> bool:
        """Whether what the user says is in an evaluation set, wholly or 13 words in a row."""
        if not self._exact:
            return False
        turns = _user_turns(messages)
        whole = (tuple(itertools.chain(*turns)), *map(tuple, turns))
        if any(hash(words) in self._exact for words in whole):
            return True
        return any(run in self._runs for words in turns for run in self._hashed_runs(words))

    def _hashed_runs(self, words: Sequence[str]) -> Iterator[int]:
        for start in range(len(words) - self._NUM_WORDS + 1):
            yield hash(tuple(words[start : start + self._NUM_WORDS]))


def _user_turns(messages: Sequence[Message]) -> list[list[str]]:
    """The words of each user turn; its signs where it has no word."""
    turns = (_tokens(one["content"]) for one in messages if one["role"] == "user")
    return [[token for token in turn if token[0].isalnum()] or turn for turn in turns]
