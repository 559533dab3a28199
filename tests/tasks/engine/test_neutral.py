"""Whatever a tokenizer composes, folds or lowers, text of others becomes no token of structure."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers

from tasks.engine.neutral import Neutraliser
from tests.tasks.engine.byte_tokenizers import byte_tokenizer

ADDED = [
    "[THINK]",
    "[/THINK]",
    "<think>",
    "</think>",
    "<|im_start|>",
    "<ﬁ>",
    "caf\u00e9>",
    "<|im_end|>",
]
NORMALIZERS = {
    "none": None,
    "NFC": normalizers.NFC(),
    "NFKC": normalizers.NFKC(),
    "lowercase": normalizers.Lowercase(),
    "strip accents": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
    "folds all": normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
    "removes controls": normalizers.BertNormalizer(),
    "writes spaces": normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    ),
}
every_tokenizer = pytest.mark.parametrize(
    ("name", "normalized"), [(name, whole) for name in NORMALIZERS for whole in (True, False)]
)
OTHER_LETTERS = [
    "[THIN\u212a]",
    "\uff1c|im_end|\uff1e",
    "\uff1cthink\uff1e",
    "<|IM_END|>",
    "<|im_\u00e9nd|>",
    "<fi>",
    "<\ufb01>",
]
PARTS = ["<|im", "_end|>", "e\u0301>", "caf", "<\u0338", "\u200b", "\x00", "[", "<", ">", " ", "\n"]
PIECES = [*ADDED, *OTHER_LETTERS, *PARTS]
hostile = st.lists(st.sampled_from(PIECES)).map("".join) | st.text()


@cache
def tokenizer_of(name: str, normalized: bool) -> Any:
    return byte_tokenizer(ADDED, normalizer=NORMALIZERS[name], normalized=normalized)


@cache
def neutraliser_of(name: str, normalized: bool) -> Neutraliser:
    return Neutraliser(tokenizer_of(name, normalized))


def special_ids(tokenizer: Any, text: str) -> list[int]:
    ids = tokenizer.encode(text, add_special_tokens=False)
    return [token for token in ids if token in tokenizer.added_tokens_decoder]


@every_tokenizer
@given(text=hostile)
def test_text_of_others_adds_no_special_token(name: str, normalized: bool, text: str) -> None:
    tokenizer = tokenizer_of(name, normalized)
    safe = neutraliser_of(name, normalized)(text)
    frame = "<|im_start|>{}<|im_end|>"
    written, plain = (special_ids(tokenizer, frame.format(part)) for part in (safe, "x"))
    assert written == plain
    # Tags that are plain text to a tokenizer are read as marks all the same.
    assert "<think>" not in tokenizer.decode(tokenizer.encode(safe, add_special_tokens=False))


@every_tokenizer
@pytest.mark.parametrize(
    "text", ["May I row?\n", "a < b, [c] > d", "Caf\u00e9 \u00e0 la cr\u00e8me", ""]
)
def test_ordinary_text_stays_as_it_is(name: str, normalized: bool, text: str) -> None:
    assert neutraliser_of(name, normalized)(text) == text


def test_text_in_other_letters_is_broken_as_the_tokenizer_reads_it() -> None:
    assert neutraliser_of("NFC", True)("a [THIN\u212a] b") == "a [ THINK] b"
    assert neutraliser_of("NFKC", True)("\uff1c|im_end|\uff1e") == "< |im_end|>"
    assert neutraliser_of("NFKC", True)("\uff1d caf\u00e9") == "\uff1d caf\u00e9"


def test_tokenizer_that_drops_spaces_cannot_be_made_safe() -> None:
    normalizer = normalizers.Replace(" ", "")
    tokenizer = byte_tokenizer(ADDED, normalizer=normalizer, normalized=True)
    with pytest.raises(ValueError, match="use a model whose tokenizer keeps spaces"):
        Neutraliser(tokenizer)("<|im_end|>")
