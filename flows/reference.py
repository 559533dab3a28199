"""The generated parts of the README pages: every recipe key, table, column and question.

A page holds a part between the lines `<!-- generated: NAME -->` and `<!-- end -->`. The sentences
come from where each thing is defined: field docs, column docs, the first comment of a query. Run
`make reference` after a change; a test fails while a page is stale or a sentence is missing.
"""

import json
import re
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from flows import terminal
from flows.recipe import Recipe
from tasks.paths import PROJECT
from warehouse.catalog import query_doc, query_names
from warehouse.tables import TABLES, Column, columns


def recipe_keys() -> str:
    """Returns every key of a recipe as Markdown, a table per section.

    Raises ValueError if a key has no sentence.
    """
    sections: dict[type[BaseModel], str] = {}
    _add_sections(Recipe, "", sections)
    parts = []
    for model, section in sections.items():
        rows = [
            f"| `{name}` | {_cell(_type(field.annotation, sections))} "
            f"| {_cell(_default(field))} | {_cell(_sentence(field, name))} |"
            for name, field in model.model_fields.items()
        ]
        heading = f"### `{section}`" if section else "### Top level"
        doc = " ".join((model.__doc__ or "").split())
        parts.append("\n".join([heading, "", doc, "", _HEAD, *rows]))
    return "\n\n".join(parts)


_HEAD = "| key | type | default | |\n|--|--|--|--|"


def _add_sections(
    model: type[BaseModel],
    path: str,
    sections: dict[type[BaseModel], str],
    *,
    is_list: bool = False,
) -> None:
    """Adds a configuration and those in it, each once, under the first section that has it."""
    sections[model] = (f"[[{path}]]" if is_list else f"[{path}]") if path else ""
    for name, field in model.model_fields.items():
        for inner in _models(field.annotation):
            if inner not in sections:
                inner_path = f"{path}.{name}" if path else name
                _add_sections(inner, inner_path, sections, is_list=_is_list(field.annotation))


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Returns the configurations in a type, such as the one in `list[SourceConfig] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(map(_is_list, get_args(annotation)))


def _type(annotation: Any, sections: Mapping[type[BaseModel], str]) -> str:
    """Returns a field's type in the words of TOML; a section is a link to its keys."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _type(arguments[0], sections)
    if origin in (Union, UnionType):
        parts = [_type(part, sections) for part in arguments if part is not type(None)]
        return " or ".join(parts)
    if origin is list:
        return f"list of {_type(arguments[0], sections)}"
    if origin is dict:
        keys, values = arguments
        names = "" if keys is str else f"{_type(keys, sections)} → "
        return f"table of {names}{_type(values, sections)}"
    if origin is Literal:
        return " or ".join(f'`"{value}"`' for value in arguments)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        section = sections[annotation]
        return f"[section](#{re.sub(r'[^a-z_]', '', section)})"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f'`"{member.value}"`' for member in annotation)
    words = {str: "text", int: "integer", float: "number", bool: "true or false", object: "any"}
    return words[annotation]


def _default(field: FieldInfo) -> str:
    """Returns a field's default as TOML, a dash if the key must be given, or nothing for unset."""
    if field.default is PydanticUndefined:
        # A key without a default whose sentence has an "Unset:" is filled in by its reader.
        return "" if "Unset:" in (field.description or "") else "–"
    if isinstance(field.default, BaseModel):
        changed = field.default.model_dump(mode="json", exclude_defaults=True)
        return f"`{_toml(changed)}`" if changed else ""
    return f"`{_toml(field.default)}`" if field.default not in (None, [], {}) else ""


def _toml(value: Any) -> str:
    """Returns a value as TOML writes it on one line."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(item)}' for key, item in value.items())} }}"
    return repr(value) if isinstance(value, float) else json.dumps(value)


def _sentence(field: FieldInfo, name: str) -> str:
    if not field.description:
        raise ValueError(f"recipe key {name!r} has no sentence; write one under the field")
    return " ".join(field.description.split())


def _cell(text: str) -> str:
    """Returns a text as one cell of a Markdown table."""
    parts = text.replace("|", "\\|").split("`")
    # Outside code, `<think>` would be read as HTML and not be shown.
    parts[::2] = [part.replace("<", "\\<") for part in parts[::2]]
    return "`".join(parts)


def tables() -> str:
    """Returns every table and column of the warehouse as Markdown."""
    parts = []
    for name, table in TABLES.items():
        doc = " ".join((table.row.__doc__ or "").split())
        rows = [
            f"| `{column.name}` | {_column_type(column)} | {_cell(column.sentence)} |"
            for column in columns(table)
        ]
        key = ", ".join(f"`{part}`" for part in table.key)
        head = f"### {name}\n\n{doc} Key: {key}.\n\n| column | type | |\n|--|--|--|"
        parts.append("\n".join([head, *rows]))
    return "\n\n".join(parts)


def _column_type(column: Column) -> str:
    """Returns the type of a column in words, and whether it may be null."""
    element = re.fullmatch(r"list<element: (.*) not null>", column.type)
    text = element[1] if element else column.type
    words = _WORDS.get(text, "struct" if text.startswith("struct<") else text)
    words = f"list of {words}" if element else words
    return f"{words} or null" if column.nullable else words


_WORDS = {
    "string": "text",
    "int64": "integer",
    "double": "number",
    "bool": "boolean",
    "timestamp[us, tz=UTC]": "timestamp",
}


def questions() -> str:
    """Returns every named question with the first sentence of its comment as Markdown."""
    rows = []
    for name in query_names():
        doc = query_doc(name)
        if not doc:
            raise ValueError(f"question {name!r} has no sentence; begin its file with one")
        rows.append(f"| `{name}` | {_cell(doc)} |")
    return "\n".join(["| question | |", "|--|--|", *rows])


PARTS: dict[str, tuple[Path, Callable[[], str]]] = {
    "recipe keys": (PROJECT / "flows" / "README.md", recipe_keys),
    "tables": (PROJECT / "warehouse" / "README.md", tables),
    "questions": (PROJECT / "warehouse" / "README.md", questions),
}
"""By name, the page that holds a generated part, and the function that generates it."""


def with_part(page: str, name: str, text: str) -> str:
    """Returns a page with one generated part replaced; raises ValueError without its marks."""
    mark = re.compile(rf"(<!-- generated: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not mark.search(page):
        raise ValueError(f"no lines '<!-- generated: {name} -->' and '<!-- end -->'; add them")
    return mark.sub(lambda match: f"{match[1]}{text}\n{match[2]}", page)


def stale_parts() -> list[str]:
    """Returns the names of the parts whose page does not hold them as they are now."""
    return [
        name
        for name, (path, generate) in PARTS.items()
        if (page := path.read_text(encoding="utf-8")) != with_part(page, name, generate())
    ]


def main() -> None:
    """Writes every generated part into its page."""
    for name, (path, generate) in PARTS.items():
        page = path.read_text(encoding="utf-8")
        path.write_text(with_part(page, name, generate()), encoding="utf-8")
        terminal.line(f"{path.relative_to(PROJECT)}: {name}")


if __name__ == "__main__":
    main()
