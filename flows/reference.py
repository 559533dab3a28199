"""The generated parts of the README pages: every recipe key, table, column and question.

A page holds a part between the lines `<!-- generated: NAME -->` and `<!-- end -->`. The sentences
come from where each thing is defined: field docs, column docs, the first comment of a query. Run
`make reference` after a change; a test fails while a page is stale or a sentence is missing.
"""

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from flows.recipe import Recipe
from tasks.paths import PROJECT
from warehouse.catalog import query_names, query_text
from warehouse.tables import TABLES


class MissingSentence(ValueError):
    """A field, a column or a question without a sentence, or a page without its marks."""


def recipe_keys() -> str:
    """Returns every key of a recipe as Markdown, a table per section."""
    parts = []
    for section, model in _sections(Recipe, "", set()):
        heading = f"### [{section}]" if section else "### Top level"
        rows = [
            f"| `{name}` | {_type(field)} | {_default(field)} | {_cell(_sentence(field, name))} |"
            for name, field in model.model_fields.items()
        ]
        doc = " ".join((model.__doc__ or "").split())
        parts.append("\n".join([heading, "", doc, "", _HEAD, *rows]))
    return "\n\n".join(parts)


_HEAD = "| key | type | default | |\n|--|--|--|--|"


def _sections(
    model: type[BaseModel], section: str, seen: set[type]
) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yields a configuration and those in it, each once, under the first section that has it."""
    seen.add(model)
    yield section, model
    for name, field in model.model_fields.items():
        for inner in _models(field.annotation):
            if inner not in seen:
                yield from _sections(inner, f"{section}.{name}" if section else name, seen)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Returns the configurations in a type, such as the one in `list[SourceConfig] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _type(field: FieldInfo) -> str:
    """Returns a field's type as the reader of a recipe would write it."""
    return _cell(f"`{_type_name(field.annotation)}`")


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return _type_name(arguments[0])
    if origin in (Union, UnionType):
        return _type_name(next(part for part in arguments if part is not type(None)))
    if origin is list:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return f"table of {_type_name(arguments[1])}"
    if str(origin) == "typing.Literal":
        return " or ".join(f'"{value}"' for value in arguments)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f'"{member.value}"' for member in annotation)
    return {str: "text", int: "integer", float: "number", bool: "true or false"}[annotation]


def _default(field: FieldInfo) -> str:
    """Returns a field's default, a dash if it has none and must be given, or nothing for unset."""
    if field.default is PydanticUndefined:
        return "–"
    if field.default is None or field.default == [] or field.default == {}:
        return ""
    if isinstance(field.default, BaseModel):
        changed = field.default.model_dump(exclude_defaults=True)
        return _cell(f"`{changed}`") if changed else ""
    value = field.default
    return f"`{str(value).lower() if isinstance(value, bool) else value!r}`".replace("'", '"')


def _sentence(field: FieldInfo, name: str) -> str:
    if not field.description:
        raise MissingSentence(f"recipe key {name!r} has no sentence; write one under the field")
    return " ".join(field.description.split())


def _cell(text: str) -> str:
    """Returns a text as one cell of a Markdown table."""
    return text.replace("|", "\\|")


def tables() -> str:
    """Returns every table and column of the warehouse as Markdown."""
    parts = []
    for name, table in TABLES.items():
        doc = " ".join((table.row.__doc__ or "").split())
        sentences = column_sentences(table.row)
        rows = [
            f"| `{column.name}` | {_column_type(column)} | {_cell(sentences[column.name])} |"
            for column in table.schema
        ]
        key = ", ".join(f"`{part}`" for part in table.key)
        head = f"### {name}\n\n{doc} Key: {key}.\n\n| column | type | |\n|--|--|--|"
        parts.append("\n".join([head, *rows]))
    return "\n\n".join(parts)


def column_sentences(row: type) -> dict[str, str]:
    """Returns the sentence under each field of a row class."""
    [definition] = ast.parse(inspect.getsource(row)).body
    assert isinstance(definition, ast.ClassDef)
    sentences = {}
    for field, text in zip(definition.body, [*definition.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        name = field.target.id
        if not isinstance(text, ast.Expr) or not isinstance(text.value, ast.Constant):
            raise MissingSentence(
                f"column {row.__name__}.{name} has no sentence; write one under the field"
            )
        sentences[name] = " ".join(str(text.value.value).split())
    return sentences


def _column_type(column: pa.Field) -> str:
    """Returns the type of a column in words, and whether it may be null."""
    text = re.sub(r"list<element: (.*) not null>", r"list of \1", str(column.type))
    text = re.sub(r"struct<.*>", "struct", text)
    words = {
        "string": "text",
        "int64": "integer",
        "double": "number",
        "bool": "boolean",
        "timestamp[us, tz=UTC]": "timestamp",
        "list of string": "list of text",
        "list of double": "list of number",
    }.get(text, text)
    return f"{words} or null" if column.nullable else words


def questions() -> str:
    """Returns every named question with the first sentence of its comment as Markdown."""
    rows = []
    for name in query_names():
        comment = []
        for line in query_text(name).splitlines():
            if not line.startswith("--"):
                break
            comment.append(line.removeprefix("--").strip())
        if not comment:
            raise MissingSentence(f"question {name!r} has no sentence; begin its file with one")
        rows.append(f"| `{name}` | {_cell(' '.join(comment))} |")
    return "\n".join(["| question | |", "|--|--|", *rows])


PARTS: dict[str, tuple[Path, Callable[[], str]]] = {
    "recipe keys": (PROJECT / "flows" / "README.md", recipe_keys),
    "tables": (PROJECT / "warehouse" / "README.md", tables),
    "questions": (PROJECT / "warehouse" / "README.md", questions),
}
"""By name, the page that holds a generated part, and the function that generates it."""


def with_part(page: str, name: str, text: str) -> str:
    """Returns a page with one generated part replaced; raises MissingSentence without its marks."""
    mark = re.compile(rf"(<!-- generated: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not mark.search(page):
        raise MissingSentence(f"no lines '<!-- generated: {name} -->' and '<!-- end -->'; add them")
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
        sys.stdout.write(f"{path.relative_to(PROJECT)}: {name}\n")


if __name__ == "__main__":
    main()
