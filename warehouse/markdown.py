"""Pages of Markdown: their templates, and texts in which nothing is markup."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_SIGNS = r"\|`*_[]~"


def templates(folder: Path, *, autoescape: bool) -> Environment:
    """Returns the templates of a folder; they fail at a name that they are not given."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def without_signs(text: str) -> str:
    """Returns a text in which the signs of Markdown are escaped; HTML is the caller's to escape."""
    return "".join(f"\\{sign}" if sign in _SIGNS else sign for sign in text)
