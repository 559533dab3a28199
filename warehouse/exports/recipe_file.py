"""A resolved recipe as a file that leaves: TOML for Precept, without secrets or private paths.

No key of a recipe is meant to hold a secret, but some take what a user writes, such as arguments of
an engine: values that look like one stay behind.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_NAMED_SECRET = re.compile(
    r"(^|[_-])(token|secret|password|passwd|passphrase|api_?key|apikey|authorization|credentials?)$",
    re.IGNORECASE,
)
_SECRET = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9_-]{16,}|\bAKIA[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{20,}"
    r"|(?<=://)[^/@\s]+:[^/@\s]+(?=@)|\bBearer\s+\S{16,}"
)
LEFT_OUT = "left out"
"""Stands for a value that looks like a secret."""
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def without_secrets(text: str) -> str:
    """Returns a text in which nothing looks like a key, a token or a password of an address."""
    return _SECRET.sub(LEFT_OUT, text)


def shown_paths(text: str, folders: Sequence[tuple[str, str]]) -> str:
    """Returns a text in which the beginnings of paths are replaced by what they are shown as."""
    for folder, shown in folders:
        text = re.sub(rf"(?<![\w/.-]){re.escape(folder)}(?=/|$|[\s'\":,])", shown, text)
    return text


def recipe_file(resolved: str, *, name: str, folders: Sequence[tuple[str, str]] = ()) -> str:
    """Returns a resolved recipe, given as JSON, as TOML.

    `folders` are the beginnings of paths to replace, each with what it is shown as.
    """
    recipe = _clean(json.loads(resolved), folders)
    head = f"# Recipe {name} with every default filled in, as the run that used it recorded it.\n"
    return head + "\n".join(_section(recipe, ())).strip() + "\n"


def _clean(value: Any, folders: Sequence[tuple[str, str]]) -> Any:
    if isinstance(value, str):
        return shown_paths(without_secrets(value), folders)
    if isinstance(value, list):
        return [_clean(one, folders) for one in value]
    if isinstance(value, dict):
        return {
            key: LEFT_OUT
            if isinstance(one, str) and _NAMED_SECRET.search(key)
            else _clean(one, folders)
            for key, one in value.items()
            if one is not None
        }
    return value


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
