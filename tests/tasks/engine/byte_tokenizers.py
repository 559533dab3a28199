"""Small tokenizers for tests of engines: bytes, and the tokens that a family adds."""

from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers


def byte_tokenizer(
    added: Sequence[str],
    *,
    normalizer: normalizers.Normalizer | None = None,
    normalized: bool = False,
    template: str | None = None,
) -> Any:
    """Returns a tokenizer of transformers that reads bytes and these tokens, the last its eos."""
    from transformers import PreTrainedTokenizerFast

    vocabulary = {byte: i for i, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokens = [AddedToken(token, normalized=normalized, special=True) for token in added]
    tokenizer.add_special_tokens(tokens)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=added[-1])
    wrapped.chat_template = template
    return wrapped
