"""A model's own files → what they say of it, read in a moment and without loading anything.

The folder is the user's own, or that of Hugging Face's cache. A model that is in neither is asked
for at Hugging Face; its weights are not fetched here.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.engine.faults import first_line
from tasks.engine.requests import EngineConfig
from tasks.engine.turns import Render, Written
from tasks.paths import places

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_SECONDS_TO_ANSWER = 2.0
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
_OTHER_CACHE = re.compile(
    r"kv_lora|linear_|mamba|ssm|sliding_window|layers_block_type|attention_chunk"
)
"""Keys of models whose cache is not that of plain attention."""
_LARGE = 64 * 2**20
"""Bytes of weights."""
_BYTES = {"float32": 4, "float16": 2, "half": 2, "bfloat16": 2, "float": 4}
_GENERATION_TAG = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Facts about a model, from its files."""

    architecture: str
    context: int | None
    """Longest context in tokens; None if it is scaled or unknown."""
    dtype: str | None
    """Type of the weights in their files."""
    num_bytes: int
    """Size of the weights in their files; 0 if they are yet to be fetched."""
    is_quantised: bool
    cache_values_per_token: int | None
    """Numbers that the cache holds for a token; None if the model's attention is not the plain
    one."""
    folder: Path

    @classmethod
    def of(cls, engine: EngineConfig) -> "ModelFacts":
        """Returns the facts of an engine's model.

        Raises ValueError if there is no such model, or its files are no model's.
        """
        folder = find_folder(engine)
        config = _read_json(folder / "config.json")
        text = {**config, **_section(config, "text_config"), **_section(config, "llm_config")}
        architectures = config.get("architectures") or []
        if not architectures:
            raise ValueError(
                f"config.json of {engine.model} names no architecture; give the folder of a whole "
                "model"
            )
        dtype = text.get("dtype") or text.get("torch_dtype")
        return cls(
            architecture=str(architectures[0]),
            context=_context(text),
            dtype=str(dtype) if dtype else None,
            num_bytes=_weights(engine, folder),
            is_quantised="quantization_config" in config,
            cache_values_per_token=_cache_values(text),
            folder=folder,
        )

    @property
    def is_large(self) -> bool:
        """True if it matters in which type a CPU computes, and whether a training fits."""
        return self.num_bytes >= _LARGE

    def weights_bytes(self, dtype: str) -> int:
        """Returns the size of the weights in memory, as an engine of that type holds them."""
        stored, held = _BYTES.get(self.dtype or ""), _BYTES.get(dtype)
        if self.is_quantised or not stored or not held:
            return self.num_bytes
        return self.num_bytes * held // stored

    def cache_bytes(self, num_tokens: int, *, dtype: str) -> int | None:
        """Returns the size of the cache of so many tokens; None if it is not known."""
        held = _BYTES.get(dtype) or _BYTES.get(self.dtype or "")
        if self.cache_values_per_token is None or held is None:
            return None
        return num_tokens * self.cache_values_per_token * held

    def read_vocabulary(self) -> Mapping[str, int] | None:
        """Returns the tokens of the model's tokenizer.json; None if it has none."""
        return read_vocabulary(self.folder)

    def render_by(self, kwargs: Mapping[str, Any]) -> Render | None:
        """Returns what writes turns by the chat template; None if no file here says how.

        Raises ValueError if the model is one that has none.
        """
        if not (self.folder / "tokenizer_config.json").is_file():
            return None
        settings = _read_json(self.folder / "tokenizer_config.json")
        template = _template(self.folder, settings)
        if template is None:
            if (self.folder / "tekken.json").is_file():
                return None
            raise ValueError(
                f"{self.folder} has no chat template; use a model that was tuned for chats, or put "
                "its chat_template.jinja into the folder"
            )
        names = ("bos_token", "eos_token", "unk_token", "pad_token")
        tokens = {name: _token(settings.get(name)) for name in names if settings.get(name)}
        return _compile(template, {**tokens, **kwargs})


def read_vocabulary(folder: Path) -> Mapping[str, int] | None:
    """Returns the tokens of a model's tokenizer.json; None if its folder has none."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path)).get_vocab()
    except Exception as error:  # the library raises no type of its own
        raise ValueError(
            f"{path} cannot be read: {error}; fetch the model's tokenizer again"
        ) from error


def find_folder(engine: EngineConfig) -> Path:
    """Returns the folder of a model, whose config.json is fetched from Hugging Face if it is
    nowhere here; raises ValueError if there is none."""
    return find_at_hand(engine) or _fetch(engine)


def find_at_hand(engine: EngineConfig) -> Path | None:
    """Returns the folder of a model: the user's own, or that of Hugging Face's cache. None if it is
    in neither.

    Raises ValueError if the path of a model is that of something else.
    """
    path = Path(engine.model_path)
    if (path / "config.json").is_file():
        return path
    if path.exists():
        raise ValueError(
            f"model {engine.model_path!r} is no folder of a model, which holds config.json, a "
            "tokenizer and weights; give the one that does"
        )
    if not _HUB_ID.fullmatch(engine.model_path):
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(engine.model, "config.json", revision=engine.revision)
    return Path(cached).parent if isinstance(cached, str) else None


def _fetch(engine: EngineConfig) -> Path:
    """Fetches the config.json of a model from Hugging Face and returns the folder of it."""
    if not _HUB_ID.fullmatch(engine.model_path):
        raise ValueError(
            f"no model at {engine.model_path!r} ({places()}); give a local folder, or an id of "
            "Hugging Face such as Qwen/Qwen3-8B"
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    name, revision = engine.model, engine.revision
    _require_hub(engine)
    try:
        return Path(hf_hub_download(name, "config.json", revision=revision)).parent
    except (HfHubHTTPError, OSError) as error:
        raise ValueError(
            f"model {name} cannot be fetched from Hugging Face ({first_line(error)}); check its id "
            "and its revision, and set HF_TOKEN if the model is not open to all"
        ) from error


def _require_hub(engine: EngineConfig) -> None:
    """Raises ValueError if a model must be fetched and Hugging Face cannot be asked for it."""
    import httpx
    from huggingface_hub import constants

    try:
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        # The library itself would try several times, and wait longer each time.
        httpx.head(constants.ENDPOINT, timeout=_SECONDS_TO_ANSWER)
    except (OSError, httpx.HTTPError) as error:
        name = f"{engine.model}@{engine.revision}" if engine.revision else engine.model
        raise ValueError(
            f"model {name} is neither a local folder nor whole in Hugging Face's cache, and "
            f"{constants.ENDPOINT} cannot be asked ({error}); download it where there is a "
            "network, or give a local folder"
        ) from error


def _weights(engine: EngineConfig, folder: Path) -> int:
    """Returns the size of the weights; 0 if they are yet to be fetched from Hugging Face.

    Raises ValueError if a local model lacks some, or a file of them is not whole.
    """
    indices = sorted(folder.glob("*.safetensors.index.json"))
    listed = {name for path in indices for name in _read_json(path).get("weight_map", {}).values()}
    missing = sorted(name for name in listed if not (folder / name).is_file())
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        files = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.gguf")]
    for file in files:
        _check_whole(file)
    if files and not missing:
        return sum(file.stat().st_size for file in files)
    if folder != Path(engine.model_path):
        _require_hub(engine)
        return 0
    lacking = f"{missing[0]}, which its index lists" if missing else "weights (model.safetensors)"
    raise ValueError(f"{engine.model} lacks {lacking}; copy the whole model there")


def _check_whole(file: Path) -> None:
    """Raises ValueError if a file of weights is cut, or is not one."""
    if file.suffix != ".safetensors":
        return
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as weights:
            weights.keys()
    except SafetensorError as error:
        raise ValueError(
            f"{file} is no whole file of weights: {error}; fetch it again (with git lfs pull if "
            "the folder is a clone)"
        ) from error


def _context(config: Mapping[str, Any]) -> int | None:
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kinds = [rope, *(part for part in rope.values() if isinstance(part, dict))]
    if any(kind.get("rope_type", kind.get("type", "default")) != "default" for kind in kinds):
        return None
    found = [config[key] for key in _CONTEXT_KEYS if isinstance(config.get(key), int)]
    return max(found) if found else None


def _cache_values(config: Mapping[str, Any]) -> int | None:
    """Returns the keys and values of a token in all layers, of a model with plain attention."""
    kinds = set(config.get("layer_types") or ["full_attention"])
    others = [key for key, value in config.items() if value and _OTHER_CACHE.search(key)]
    if kinds != {"full_attention"} or (others and others != ["use_sliding_window"]):
        return None
    try:
        num_heads = config["num_attention_heads"]
        num_kept = config.get("num_key_value_heads") or num_heads
        size = config.get("head_dim") or config["hidden_size"] // num_heads
        return 2 * int(config["num_hidden_layers"]) * int(num_kept) * int(size)
    except (KeyError, TypeError, ValueError):
        return None


def _template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """Returns the chat template, in the order in which transformers looks for it."""
    if (path := folder / "chat_template.jinja").is_file():
        return path.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {entry["name"]: entry["template"] for entry in template}
        template = named.get("default")
    return str(template) if template else None


def _compile(template: str, variables: Mapping[str, Any]) -> Render | None:
    """Returns what writes turns by a template, as transformers does, which takes seconds to import.

    None if the template cannot be read here: the engine's start judges it.
    """
    from datetime import datetime

    from jinja2 import TemplateError, TemplateSyntaxError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def as_json(value: Any, **options: Any) -> str:
        return json.dumps(value, **{"ensure_ascii": False, **options})

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = as_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        # Marks for training, which write nothing.
        compiled = environment.from_string(_GENERATION_TAG.sub("", template))
    except TemplateSyntaxError:
        return None

    def render(turns: Sequence[Written]) -> str:
        return compiled.render(messages=list(turns), add_generation_prompt=True, **variables)

    return render


def _token(value: Any) -> str:
    return str(value["content"] if isinstance(value, dict) else value)


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = config.get(name)
    return section if isinstance(section, dict) else {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}; fetch the model again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings; fetch the model again")
    return content
