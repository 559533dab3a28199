"""The questions of `precept ask`: those that ship with Precept, and a user's own.

A question is a file `NAME.sql`, whose first comment says what it answers. Those of a user lie in a
folder `queries` beside a recipe or in the working folder. They can do nothing but read the
warehouse, as `precept sql`; parameters are variables: `getvariable('q')` is null unless it is set.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from warehouse.catalog import (
    QUERIES,
    QuestionError,
    batches_of,
    comment_of,
    connect,
    query_names,
    read,
    set_variables,
)
from warehouse.home import Home
from warehouse.statement import run_statement

FOLDER = "queries"
"""Name of the folders in which a user's own questions lie."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`])")
_VARIABLE = re.compile(r"(?P<name>[a-z_][a-z0-9_]*)=(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Question:
    """A named query."""

    name: str
    text: str
    """The SQL, which begins with a comment."""
    path: Path
    is_shipped: bool

    @property
    def doc(self) -> str:
        """Its meaning: the comment that its file begins with, in one line."""
        return comment_of(self.text)

    @property
    def sentence(self) -> str:
        """The first sentence of that comment; of a question without one, how to give it one."""
        first = _SENTENCE_END.split(self.doc, maxsplit=1)[0]
        return first or f"({self.path} begins with no comment that says what it answers.)"


def list_questions(folders: Sequence[Path]) -> list[Question]:
    """Returns all questions by name, with those of the folders.

    Raises QuestionError if one cannot be read, or has the name of another.
    """
    shipped = {name: _shipped(name) for name in query_names()}
    own: dict[str, Question] = {}
    for path in _files(folders):
        _require_free(path, {**shipped, **own})
        own[path.stem] = _own(path)
    return [question for _, question in sorted({**shipped, **own}.items())]


def find_question(name: str, folders: Sequence[Path]) -> Question:
    """Returns the question of a name; raises QuestionError if there is none, or more than one."""
    paths = [path for path in _files(folders) if path.stem == name]
    shipped = {name: _shipped(name)} if name in query_names() else {}
    own: dict[str, Question] = {}
    for path in paths:
        _require_free(path, {**shipped, **own})
        own[name] = _own(path)
    if name in own or name in shipped:
        return own.get(name) or shipped[name]
    names = sorted({*query_names(), *(path.stem for path in _files(folders))})
    raise QuestionError(f"no query {name!r}; there are {', '.join(names)}")


def read_variables(settings: Sequence[str]) -> dict[str, str]:
    """Returns the values of settings such as `q=0.3` by their names.

    Raises QuestionError for a setting without a value, or for a name that is set twice.
    """
    variables: dict[str, str] = {}
    for setting in settings:
        match = _VARIABLE.fullmatch(setting)
        if match is None:
            raise QuestionError(f"variable {setting!r} has no value; write it as in q=0.3")
        if match["name"] in variables:
            raise QuestionError(f"variable {match['name']} is set twice; set it once")
        variables[match["name"]] = match["value"]
    return variables


def answer(
    home: Home,
    question: Question,
    *,
    variables: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> pa.RecordBatchReader:
    """Returns the answer to a question, or its first rows, in batches.

    Raises QuestionError for a question of a user's own that does more than read.
    """
    variables = variables or {}
    if not question.is_shipped:
        try:
            return run_statement(home, question.text, limit=limit, variables=variables)
        except (QuestionError, duckdb.Error) as error:
            raise QuestionError(f"{question.path}: {error}") from error
    connection = connect(home)
    set_variables(connection, variables)
    return batches_of(read(connection, question.text), limit)


def _shipped(name: str) -> Question:
    path = QUERIES / f"{name}.sql"
    return Question(name, path.read_text(encoding="utf-8"), path, is_shipped=True)


def _files(folders: Sequence[Path]) -> list[Path]:
    """Returns the files of a user's questions, each once."""
    paths = (path for folder in folders for path in sorted((folder / FOLDER).glob("*.sql")))
    own = {path.resolve(): path for path in paths if path.parent.resolve() != QUERIES.resolve()}
    return list(own.values())


def _own(path: Path) -> Question:
    try:
        return Question(path.stem, path.read_text(encoding="utf-8"), path, is_shipped=False)
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise QuestionError(f"question {path} cannot be read: {cause}") from error


def _require_free(path: Path, questions: Mapping[str, Question]) -> None:
    other = questions.get(path.stem)
    if other is not None:
        whose = "that ships with Precept" if other.is_shipped else f"in {other.path}"
        raise QuestionError(f"{path} has the name of a question {whose}; rename it")
