"""A model of a known architecture with random weights, for trying a recipe where its model is not.

Attention, feed-forward and embeddings are drawn at random. The output head alone is written: it
continues one reply, token by token, so that every stage has replies in form to go on with.
"""

import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specs.replies import CLOSE_TAG, OPEN_TAG, Marks
from tasks.engine.families import marks_of
from tasks.engine.faults import first_line
from tasks.engine.model_files import find_at_hand
from tasks.engine.requests import EngineConfig
from tasks.paths import PROJECT

if TYPE_CHECKING:
    from transformers import PretrainedConfig

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
"""Sizes of a model whose step takes a processor milliseconds."""
CONTEXT = 16384
"""Shortest context of a small model, in tokens: that of the longest spec by the tokenizer that
ships."""

SCORE = 9
"""The score that the reply gives when it is read as a verdict."""
_REASONING, _ANSWER = "weighed", f"Score: {SCORE}"
_SHARPNESS = 6.0
"""Logit of the next token of the reply above what all the others, which are near 0, add up to."""
_RARITY = 8.0
"""By how much less likely a token of the reply, or the one before it, is elsewhere: text that an
engine holds to another form does not run into the reply again, whose marks would end its reasoning
a second time."""


def shape_of(engine: EngineConfig) -> "PretrainedConfig":
    """Returns the configuration of the text model of an engine, from its own files where they are
    at hand, else as published; of a model behind an endpoint that is neither, Qwen3-8B's.

    Asks nothing of Hugging Face. Raises ValueError if the shape is not known, or the model is not
    one that transformers can make for text alone.
    """
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    folder = None if engine.endpoint else find_at_hand(engine)
    if folder is not None:
        shape = AutoConfig.from_pretrained(str(folder)).get_text_config()
    else:
        published = PUBLISHED.get(engine.model)
        if published is None and engine.endpoint:
            published = PUBLISHED["Qwen/Qwen3-8B"]
        if published is None:
            raise ValueError(
                f"the shape of {engine.model} is not known: it is neither a local folder nor in "
                "Hugging Face's cache; fetch its config.json, or give a local folder"
            )
        settings = dict(published)
        shape = CONFIG_MAPPING[settings.pop("model_type")](**settings)
    if type(shape) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(
            f"{engine.model} is of type {shape.model_type}, of which no text model can be made on "
            "its own; name a model for text"
        )
    return shape


def shrunk(shape: "PretrainedConfig") -> "PretrainedConfig":
    """Returns the configuration of the same architecture and options in a small size."""
    settings = shape.to_dict()
    sizes: dict[str, Any] = {
        name: size for name, size in SMALL.items() if settings.get(name) is not None
    }
    for name, values in settings.items():
        # One for each layer; each kind of layer comes first where an architecture alternates kinds.
        if isinstance(values, list) and len(values) == settings.get("num_hidden_layers"):
            kinds = values if isinstance(values[0], dict | list) else list(dict.fromkeys(values))
            sizes[name] = (kinds * 2)[: SMALL["num_hidden_layers"]]
    if settings.get("max_position_embeddings") is not None:
        sizes["max_position_embeddings"] = max(settings["max_position_embeddings"], CONTEXT)
    # The first layers of some have no experts.
    if settings.get("first_k_dense_replace"):
        sizes["first_k_dense_replace"] = 1
    # Scales of positions are measured for the size of a head, and a small model needs none.
    for name in ("rope_scaling", "rope_parameters"):
        if _rope_type(settings.get(name)) == "longrope":
            del settings[name]
    # The published weights of some are quantised, which random ones are not.
    settings.pop("quantization_config", None)
    try:
        return type(shape).from_dict(settings | sizes)
    except Exception as error:  # each architecture checks its own settings
        raise ValueError(
            f"a model of type {shape.model_type} cannot be made small ({first_line(error)}); name "
            "a model of another type to try the rest of the recipe"
        ) from error


def _rope_type(settings: Any) -> str | None:
    return settings.get("rope_type", settings.get("type")) if isinstance(settings, dict) else None


def write_model(
    folder: Path,
    shape: "PretrainedConfig",
    *,
    engine: EngineConfig,
    seed: int = 0,
    replies: bool = True,
) -> None:
    """Writes a model of a shape with random weights, and the tokenizer and chat template with which
    `engine` can serve it: its own where they are at hand, else those that ship with Precept. The
    folder is there once it is whole.

    A model that does not reply writes until it is cut, which measures an engine at full length.
    Memory and disk hold 2 bytes a weight.
    """
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer, reply = _tokenizer_and_reply(engine)
    # A tied head would continue nothing.
    shape.tie_word_embeddings = False
    is_small = shape.hidden_size <= SMALL["hidden_size"]
    shape.vocab_size = max(len(tokenizer), 0 if is_small else shape.vocab_size)
    # Small enough for an embedding to come through all layers as it was.
    shape.initializer_range = 0.25 / shape.hidden_size**0.5
    shape.bos_token_id, shape.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    shape.pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16)
    if replies:
        _continue_reply(model, reply)
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    tokenizer.model_max_length = shape.max_position_embeddings
    tokenizer.save_pretrained(part)
    os.replace(part, folder)


def _continue_reply(model: Any, reply: Sequence[int]) -> None:
    """Writes a model's output head, so that each token of a reply is followed by the next one."""
    import torch

    embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    num_tokens, hidden_size = embeddings.shape
    # Some architectures scale their logits.
    config = model.config
    scale = getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)
    sharpness = (math.log(num_tokens) + _SHARPNESS + _RARITY) / scale
    with torch.no_grad():
        embeddings.normal_()
        # The same for all tokens, so that the head has a bias in it.
        embeddings[:, 0] = 1.0
        head.mul_(0.1)
        for token in reply:
            head[token, 0] -= _RARITY / scale
        for token, following in pairwise(reply):
            head[following] += embeddings[token] * (sharpness / hidden_size)


def _tokenizer_and_reply(engine: EngineConfig) -> tuple[Any, list[int]]:
    """Returns a tokenizer for a model, and the reply that the model continues: from the last token
    of a prompt to the one that ends a turn, each once."""
    marks = marks_of(engine.reasoning_parser, chat_template_kwargs=engine.chat_template_kwargs)
    for tokenizer in _tokenizers(engine, marks):
        reply = _reply(tokenizer, engine, marks)
        if len(set(reply)) == len(reply):
            return tokenizer, reply
    raise ValueError(
        f"{engine.model}: the reply of random weights, with the marks {marks.opening!r} and "
        f"{marks.closing!r}, has a token twice by the tokenizer that ships; leave reasoning_parser "
        "and chat_template_kwargs out to try the rest"
    )


def _tokenizers(engine: EngineConfig, marks: Marks) -> Iterator[Any]:
    """Yields the tokenizer of a model, if it is at hand, and the one that ships, with the tokens of
    the marks, of which it has none but <think>."""
    from transformers import AutoTokenizer

    folder = None if engine.endpoint else find_at_hand(engine)
    if folder is not None and (folder / "tokenizer.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        if tokenizer.chat_template:
            yield tokenizer
    tokenizer = AutoTokenizer.from_pretrained(str(TOKENIZER))
    tokenizer.add_tokens([marks.opening, marks.closing], special_tokens=True)
    template = tokenizer.chat_template.replace(OPEN_TAG, marks.opening)
    tokenizer.chat_template = template.replace(CLOSE_TAG, marks.closing)
    yield tokenizer


def _reply(tokenizer: Any, engine: EngineConfig, marks: Marks) -> list[int]:
    """Returns the last token of a prompt, the tokens of the reply that fits what the prompt has
    opened or closed already, and the token that ends a turn."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "?"}],
        tokenize=False,
        add_generation_prompt=True,
        **engine.chat_template_kwargs,
    )
    parts = [marks.opening, _REASONING, marks.closing, _ANSWER]
    if not engine.reasons or prompt.rstrip().endswith(marks.closing.rstrip()):
        parts = parts[3:]
    elif prompt.rstrip().endswith(marks.opening.rstrip()):
        parts = parts[1:]
    ids = [token for part in parts for token in tokenizer.encode(part, add_special_tokens=False)]
    last = tokenizer.encode(prompt, add_special_tokens=False)[-1]
    return [last, *ids, tokenizer.eos_token_id]
