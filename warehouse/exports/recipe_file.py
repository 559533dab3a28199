"""A resolved recipe as a file that leaves: TOML for Precept, without secrets or private paths.

No key of a recipe is meant to hold a secret, but some take what a user writes, such as arguments of
an engine: values that look like one stay behind.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from warehouse.characters import all_visible, one_line

_WORDS = (
    r"(?:token|secret|password|passwd|pwd|passphrase|signature|authorization|credential|apikey"
    r"|(?:api|access|account|private|secret|signing)[_-]?key)s?"
)
_NAMED_SECRET = re.compile(
    # Tokens of a vocabulary are no secrets.
    rf"(?:^|[_-])(?<!bos_)(?<!eos_)(?<!pad_)(?<!unk_){_WORDS}$",
    re.IGNORECASE,
)
_SECRET = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9_-]{16,}|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}|\bAIza[\w-]{30,}"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]+"
    r"|(?<=://)[^/@\s]+(?=@)|\bBearer\s+\S{16,}"
)
_IN_ADDRESS = re.compile(
    rf"([?&;](?:[\w.-]*[_.-])?(?:{_WORDS}|sig|key)=)[^&;\s'\"]+", re.IGNORECASE
)
"""A secret among the parameters of an address, after its name."""
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
LEFT_OUT = "left out"
"""Stands for a value that looks like a secret."""
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def names_secret(key: str) -> bool:
    """Returns whether a key by its name has a secret as its value."""
    return bool(_NAMED_SECRET.search(_CAMEL.sub("_", key)))


def without_secrets(text: str) -> str:
    """Returns a text in which nothing looks like a key, a token or a password of an address."""
    return _IN_ADDRESS.sub(rf"\1{LEFT_OUT}", _SECRET.sub(LEFT_OUT, text))


def shown_paths(text: str, folders: Sequence[tuple[str, str]]) -> str:
    """Returns a text in which the beginnings of paths are replaced by what they are shown as."""
    for folder, shown in folders:
        if not folder.strip("/"):
            continue
        # A folder inside another one is not meant, but in an address `file:///folder` it is.
        start = r"(?:(?<![\w/.-])|(?<=file://))"
        place = re.compile(rf"{start}{re.escape(folder)}(?![\w.-])")
        text = place.sub(shown.replace("\\", r"\\"), text)
    return text


def recipe_file(resolved: str, *, name: str, folders: Sequence[tuple[str, str]] = ()) -> str:
    """Returns a resolved recipe, given as JSON, as TOML.

    `folders` are the beginnings of paths to replace, each with what it is shown as.
    """
    recipe = _clean(json.loads(resolved), folders)
    told = one_line(name)
    head = f"# Recipe {told} with every default filled in, as the run that used it recorded it.\n"
    return head + "\n".join(_section(recipe, ())).strip() + "\n"


def _clean(value: Any, folders: Sequence[tuple[str, str]]) -> Any:
    if isinstance(value, str):
        return shown_paths(without_secrets(value), folders)
    if isinstance(value, list):
        return [_clean(one, folders) for one in value if one is not None]
    if isinstance(value, dict):
        return {
            key: _hidden(one) if names_secret(key) else _clean(one, folders)
            for key, one in value.items()
            if one is not None
        }
    return value


def _hidden(value: Any) -> Any:
    """Returns what stands for a value that is a secret by its name, with every text left out."""
    return all_visible(value, lambda _: LEFT_OUT) if isinstance(value, str | list) else value


def _section(section: Mapping[str, Any], place: tuple[str, ...]) -> Iterator[str]:
    """Yields the lines of a section: its own keys first, then the sections in it."""
    inner = {key: value for key, value in section.items() if _is_section(value)}
    for key, value in section.items():
        if key not in inner:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in inner.items():
        path = (*place, key)
        name = ".".join(map(_key, path))
        for one in value if isinstance(value, list) else [value]:
            yield ""
            yield f"[[{name}]]" if isinstance(value, list) else f"[{name}]"
            yield from _section(one, path)


def _is_section(value: Any) -> bool:
    is_list = isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)
    return isinstance(value, dict) or is_list


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, str):
        # JSON's texts are TOML's, but for DEL, which TOML escapes.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _value(key)
