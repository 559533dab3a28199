"""Text that users or models wrote → text in which a model's tokenizer finds no special token.

Some tokenizers compose, fold or lower letters before they look for their tokens, so that text in
other letters can become one. Such text is written as the tokenizer reads it, and then broken.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from specs.prompts import neutralise

_ROUNDS = 8
"""Times that a text is broken and read again; one is enough for the usual tokenizers."""


class Neutraliser:
    """Breaks the special tokens of one tokenizer of transformers in texts."""

    def __init__(self, tokenizer: Any) -> None:
        # Not only those it calls special: some models' marks of turns are not among them.
        added = tokenizer.added_tokens_decoder.values()
        self.special_tokens = _breakable(token.content for token in added)
        self._normalizer = getattr(
            getattr(tokenizer, "backend_tokenizer", None), "normalizer", None
        )
        self._tokens = self.special_tokens
        if self._normalizer is not None:
            # The tokenizer normalises such tokens as well before it looks for them.
            read = (self._normalizer.normalize_str(t.content) for t in added if t.normalized)
            self._tokens = [*dict.fromkeys([*self._tokens, *_breakable(read)])]
        # Some models have thousands of tokens, and few texts a character that starts one.
        starts = {"<", *(token.strip()[0] for token in self._tokens)}
        self._suspect = re.compile(f"[{re.escape(''.join(starts))}]")

    def __call__(self, text: str) -> str:
        """Returns the text with every special token in it broken by a space."""
        text = self._broken(text)
        if self._normalizer is None:
            return text
        if text and unicodedata.combining(text[0]):
            # It would be composed with the last letter of what the chat template puts before it.
            text = f" {text}"
        for _ in range(_ROUNDS):
            read = self._normalizer.normalize_str(text)
            broken = self._broken(read)
            if broken == read:
                return text
            text = broken
        raise ValueError(
            f"tokenizer reads {text[:40]!r} as special tokens however it is broken; use a model "
            "whose tokenizer keeps spaces"
        )

    def _broken(self, text: str) -> str:
        if not self._suspect.search(text):
            return text
        return neutralise(text, special_tokens=self._tokens)


def _breakable(tokens: Iterable[str]) -> list[str]:
    """Returns the tokens that a space can break."""
    return [token for token in tokens if len(token.strip()) > 1]
