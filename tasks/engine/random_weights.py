"""A model of a known architecture with random weights, for trying a recipe where its model is not.

Attention, feed-forward and embeddings are drawn at random. The output head alone is written: it
continues one reply, token by token, so that every stage has replies in form to go on with.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from specs.replies import CLOSE_TAG, OPEN_TAG, Marks
from tasks.engine.families import marks_of
from tasks.engine.model_files import find_folder
from tasks.engine.requests import EngineConfig
from tasks.paths import PROJECT

TOKENIZER = PROJECT / "infra" / "harbour" / "model"
"""The folder of the tokenizer and chat template that ship with Precept."""

_QWEN3 = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "head_dim": 128,
    "num_key_value_heads": 8,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": False,
}
_GPT_OSS_20B = {"model_type": "gpt_oss", "num_hidden_layers": 24, "num_local_experts": 32}
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "Qwen/Qwen3-8B": _QWEN3
    | {
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
    },
    "Qwen/Qwen3-32B": _QWEN3
    | {
        "hidden_size": 5120,
        "intermediate_size": 25600,
        "num_hidden_layers": 64,
        "num_attention_heads": 64,
    },
    "openai/gpt-oss-20b": _GPT_OSS_20B,
    "openai/gpt-oss-safeguard-20b": _GPT_OSS_20B,
    # The folder that `make real` makes.
    ".precept-real/smollm2": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
}
"""By id, what the published config.json of a model says beside its class's own defaults."""

SMALL: Mapping[str, int] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_local_experts": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 128,
    "sliding_window": 128,
}
"""Sizes of a model that a CPU runs in no time."""

_REPLY = ("weighed", "Score: 9")
"""Reasoning and answer of the reply: the answer is a verdict as well, so that a judge has one."""
_SHARPNESS = 6.0
"""Logit of the next token of the reply above what all the others, which are near 0, add up to."""
_RARITY = 8.0
"""By how much less likely a token of the reply, or the one before it, is elsewhere: text that an
engine holds to another form does not run into the reply again, whose marks would end its reasoning
a second time."""


def shape_of(engine: EngineConfig) -> Any:
    """Returns the configuration of an engine's model: that of its folder, else the published one.

    Raises ValueError if neither is at hand.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    try:
        return AutoConfig.from_pretrained(str(find_folder(engine)))
    except ValueError:
        published = PUBLISHED.get(engine.model)
        if published is None:
            raise
        settings = dict(published)
        return CONFIG_MAPPING[settings.pop("model_type")](**settings)


def shrunk(shape: Any) -> Any:
    """Returns the configuration of the same architecture and options in a small size."""
    settings = shape.to_dict()
    sizes: dict[str, Any] = {
        name: size for name, size in SMALL.items() if settings.get(name) is not None
    }
    # Of two layers each kind is one, where an architecture alternates kinds.
    kinds = settings.get("layer_types")
    if kinds:
        sizes["layer_types"] = (list(dict.fromkeys(kinds)) * 2)[: SMALL["num_hidden_layers"]]
    # The published weights of some are quantised, which random ones are not.
    settings.pop("quantization_config", None)
    return type(shape).from_dict(settings | sizes)


def write_model(
    folder: Path, shape: Any, *, engine: EngineConfig, seed: int = 0, replies: bool = True
) -> None:
    """Writes a model of a shape with random weights, and the tokenizer and chat template with which
    `engine` can serve it: its own where they are at hand, else those that ship with Precept.

    A model that does not reply writes until it is cut, which measures an engine at full length.
    Memory and disk hold 2 bytes a weight.
    """
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer, reply = _tokenizer_and_reply(engine)
    text = shape.get_text_config()
    for config in {id(one): one for one in (shape, text)}.values():
        # A tied head would continue nothing.
        config.tie_word_embeddings = False
    text.vocab_size = max(len(tokenizer), text.vocab_size if text.hidden_size > 1024 else 0)
    # Small enough for an embedding to come through all layers as it was.
    text.initializer_range = 0.25 / text.hidden_size**0.5
    text.bos_token_id, text.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    text.pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16)
    if replies:
        _continue_reply(model, reply)
    model.save_pretrained(folder)
    tokenizer.model_max_length = text.max_position_embeddings
    tokenizer.save_pretrained(folder)


def _continue_reply(model: Any, reply: Sequence[int]) -> None:
    """Writes a model's output head, so that each token of a reply is followed by the next one."""
    import torch

    embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    num_tokens, hidden_size = embeddings.shape
    sharpness = math.log(num_tokens) + _SHARPNESS + _RARITY
    with torch.no_grad():
        embeddings.normal_()
        # The same for all tokens, so that the head has a bias in it.
        embeddings[:, 0] = 1.0
        head.mul_(0.1)
        for token in reply:
            head[token, 0] -= _RARITY
        for token, following in pairwise(reply):
            head[following] += embeddings[token] * (sharpness / hidden_size)


def _tokenizer_and_reply(engine: EngineConfig) -> tuple[Any, list[int]]:
    """Returns a tokenizer for a model, and the reply that the model continues: from the last token
    of a prompt to the one that ends a turn, each once."""
    from transformers import AutoTokenizer

    marks = marks_of(engine.reasoning_parser, chat_template_kwargs=engine.chat_template_kwargs)
    for folder in (Path(engine.model_path), TOKENIZER):
        if not (folder / "tokenizer.json").is_file():
            continue
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        if folder == TOKENIZER:
            # The tokens of a family's marks, of which this tokenizer has none but <think>.
            tokenizer.add_tokens([marks.opening, marks.closing], special_tokens=True)
            template = tokenizer.chat_template.replace(OPEN_TAG, marks.opening)
            tokenizer.chat_template = template.replace(CLOSE_TAG, marks.closing)
        reply = _reply(tokenizer, engine, marks)
        if len(set(reply)) == len(reply):
            return tokenizer, reply
    raise AssertionError("the reply repeats a token of the tokenizer that ships")


def _reply(tokenizer: Any, engine: EngineConfig, marks: Marks) -> list[int]:
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "?"}],
        tokenize=False,
        add_generation_prompt=True,
        **engine.chat_template_kwargs,
    )
    is_prefilled = prompt.rstrip().endswith(marks.opening.rstrip())
    reasoning, answer = _REPLY
    parts = ("" if is_prefilled else marks.opening, reasoning, marks.closing, answer)
    ids = [token for part in parts for token in tokenizer.encode(part, add_special_tokens=False)]
    last = tokenizer.encode(prompt, add_special_tokens=False)[-1]
    return [last, *ids, tokenizer.eos_token_id]
