"""Prompts that are alike: near duplicates, and contamination by evaluation sets.

Text is compared case-folded and in Unicode's form NFKC. Decontamination compares words alone, so
that it errs on the side of leaving out; near duplicates are compared with every sign, because
"3 + 5" and "3 - 5" are not the same question.
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
        turns = _user_turns(messages)
        self._exact.add(hash(tuple(itertools.chain(*turns))))
        self._runs.update(itertools.chain(*map(self._hashed_runs, turns)))

    def share(self, messages: Sequence[Message]) -> bool:
        """Returns whether the user's words are in an evaluation set, wholly or 13 in a row."""
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
    """Returns the words of each user turn, or its signs if it has no word."""
    turns = (_tokens(one["content"]) for one in messages if one["role"] == "user")
    return [[token for token in turn if token[0].isalnum()] or turn for turn in turns]
