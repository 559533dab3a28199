"""Rows → candidates: every row of a source as a prompt, or with the reason that it cannot be one.

A source that cannot be used ends the run with one sentence; a row that cannot be used becomes a
candidate with a fault.
"""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from specs.policy import Outcome
from specs.prompts import Message
from tasks.data.chats import (
    BadRowError,
    Turn,
    has_calls,
    is_chat,
    is_missing,
    read_content,
    read_messages,
    read_role,
    read_text,
    read_turns,
)
from tasks.data.columns import column_value, has_column
from tasks.data.files import skipped_files
from tasks.data.formats import Row, Table, read_tables
from tasks.data.labels import LabelMap, texts_of, value_text
from tasks.data.sources import BESIDE_CHAT, TOOL_COLUMNS, USUAL_COLUMNS, SourceConfig
from warehouse.tables import content_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A row of a source: a prompt with its labels, or a fault and no messages."""

    messages: list[Message]
    categories: list[str]
    """Sorted; a label that the source does not map stays as it is."""
    ideal_response: str | None = None
    language: str = "en"
    transform: str | None = None
    metadata: list[str] = field(default_factory=list)
    kept: Mapping[str, Any] = field(default_factory=dict)
    """Values of the columns that the source keeps."""
    place: str = ""
    """File and line of the row; in Parquet and data sets, its number."""
    answer_left_off: bool = False
    """The chat ended on the assistant and is asked up to its last user turn."""
    left_off: Sequence[Turn] = ()
    """The turns after the last user turn."""
    columns_left_off: Sequence[str] = ()
    """Columns with tools or a system text of the row that no key of the source names."""
    fault: str | None = None
    """The reason that the row cannot be used: unreadable_row, empty_prompt, no_content, not_text,
    not_a_chat, unreadable_call, call_of_other_role, call_without_result, result_without_call,
    key_stands_twice, no_role, `unknown_role: ROLE`, not_on_user_turn, nested_too_deeply,
    left_out; of a trace also no_answer, several_answers, calls_tools."""

    @property
    def prompt_id(self) -> str:
        """Hash of the canonical messages."""
        return messages_id(self.messages)


def messages_id(messages: Sequence[Message]) -> str:
    """Returns the hash of the canonical messages: the same however a file spells a chat."""
    # The warehouse gives null for a key that a message does not have.
    given = [{key: value for key, value in turn.items() if value is not None} for turn in messages]
    return content_id(json.dumps(given, sort_keys=True, ensure_ascii=False, separators=(",", ":")))


def short(text: object) -> str:
    """Returns a value for a message, cut to 60 characters: it may be a whole prompt."""
    line = str(text)
    return repr(line if len(line) <= 60 else line[:57] + "…")


def read_chat(value: object) -> list[Message] | None:
    """Returns the chat in a kept column: a list of messages, or a user's text; None for others."""
    try:
        if isinstance(value, str):
            return [{"role": "user", "content": read_text(value)}]
        return read_messages(read_turns(value), {})
    except BadRowError:
        return None


@dataclass(frozen=True, slots=True)
class SourceNotes:
    """Facts about a source beside the counts of its rows."""

    bad_places: Mapping[str, str] = field(default_factory=dict)
    """File and line of the first row that cannot be used, by reason."""
    answers_left_off: int = 0
    """Chats that ended on the assistant and are asked up to their last user turn."""
    columns_left_off: Mapping[str, int] = field(default_factory=dict)
    """Rows with tools or a system text in a column that is not read, by column."""
    skipped_files: Sequence[str] = ()
    """Files that lie with the others and are of no kind that can be read."""
    files_without_rows: Sequence[str] = ()
    """Paths of files that can be read and hold nothing."""

    def __str__(self) -> str:
        """The facts in one line; empty if there are none."""
        parts = [f"first {reason} at {place}" for reason, place in self.bad_places.items()]
        if self.answers_left_off:
            parts.append(f"{self.answers_left_off} chats asked without their last answer")
        for column, count in self.columns_left_off.items():
            parts.append(
                f"{count} rows asked without their column {column!r} (name it in system to show it)"
            )
        for names, fate in ((self.skipped_files, "skipped"), (self.files_without_rows, "empty")):
            if names:
                noun = "file" if len(names) == 1 else "files"
                parts.append(f"{len(names)} {noun} {fate}: {', '.join(names)}")
        return "; ".join(parts)


class NoteTaker:
    """Reads a source and notes facts about it on the way."""

    def __init__(self, source: SourceConfig) -> None:
        self._source = source
        self._bad_places: dict[str, str] = {}
        self._answers_left_off = 0
        self._columns_left_off: Counter[str] = Counter()
        self._files_without_rows: list[str] = []

    def candidates(self, read: "Read | None" = None) -> Iterator[Candidate]:
        """Yields the rows of the source, as `read` does; unset, as `read_source` does."""
        for candidate in (read or read_source)(self._source, self._files_without_rows):
            self._answers_left_off += candidate.answer_left_off
            self._columns_left_off.update(candidate.columns_left_off)
            if candidate.fault and candidate.fault != "left_out":
                self._bad_places.setdefault(candidate.fault, candidate.place)
            yield candidate

    @property
    def notes(self) -> SourceNotes:
        """The facts about the rows so far and the files."""
        return SourceNotes(
            self._bad_places,
            self._answers_left_off,
            dict(self._columns_left_off),
            tuple(skipped_files(self._source)),
            tuple(self._files_without_rows),
        )


_HEAD_ROWS = 1000
"""Rows that tell which columns a JSON file has, unless one of those that are named is missing."""


Read = Callable[[Any, list[str]], Iterator[Candidate]]
"""Yields the rows of a source, and adds the paths of its empty files to a list."""


def read_source(
    source: SourceConfig, files_without_rows: list[str] | None = None
) -> Iterator[Candidate]:
    """Yields the rows of a source; a row that cannot be used has a fault and no messages.

    Adds the paths of files without any row to a list, if one is given.

    Raises ValueError if the source cannot be read, lacks a column, has an ideal response that it
    does not map, or has no rows.
    """
    num_rows = 0
    for table in read_tables(source):
        if next(table.rows(), None) is None:
            if files_without_rows is not None:
                files_without_rows.append(table.place)
            continue
        reader = _Reader(source, table.place, _usual_column(source, table))
        for row in table.rows():
            if num_rows == source.limit:
                return
            num_rows += 1
            yield from reader.candidates(row)
    if num_rows == 0:
        place = source.path or source.dataset
        raise ValueError(f"source {source.name!r}: no rows in {place}; give it some or remove it")


def _usual_column(source: SourceConfig, table: Table) -> str | None:
    """Returns the column with the prompts, or None if the source names it.

    Raises ValueError if a column is missing. A key of JSON may come late, and is then looked for in
    the whole file.
    """
    # The first rows are read again later, as so many long ones would not fit in memory.
    keys = (row.values for row in itertools.islice(table.rows(), _HEAD_ROWS))
    columns = list(dict.fromkeys(itertools.chain.from_iterable(keys)))
    missing = _missing(source.columns, itertools.islice(table.rows(), _HEAD_ROWS))
    if missing or not (source.text_columns or _first_usual(columns)):
        columns = table.columns()
        missing = [name for name in missing if name not in columns]
        if all("." in name for name in missing):
            missing = _missing(missing, table.rows())
    usual = _first_usual(columns)
    if not missing and (source.text_columns or usual):
        return None if source.text_columns else usual
    listed = f"its columns are {', '.join(map(str, columns)) or 'none'}"
    if (num_lines := table.num_lines_to_skip()) is not None:
        listed += f" (set skip_lines = {num_lines}: line {num_lines + 1} has the columns)"
    elif len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
        listed += " (set delimiter to the character that separates them)"
    if missing:
        raise ValueError(
            f"source {source.name!r}: {table.place} has no column {missing[0]!r}; {listed}: name "
            "one of them"
        )
    raise ValueError(
        f"source {source.name!r}: {table.place} has neither a column 'messages' nor 'prompt'; "
        f"{listed}: say which in prompt or messages"
    )


def _first_usual(columns: Sequence[str]) -> str | None:
    return next((name for name in USUAL_COLUMNS if name in columns), None)


def _missing(names: Sequence[str], rows: Iterable[Row]) -> list[str]:
    """Returns the columns that none of the rows has."""
    missing = list(names)
    for row in rows:
        if not missing:
            break
        missing = [name for name in missing if not has_column(row.values, name)]
    return missing


@dataclass(frozen=True, slots=True)
class _Prompt:
    """Messages of a row."""

    messages: list[Message]
    left_off: Sequence[Turn] = ()


class _Reader:
    """Reads the rows of one table of a source."""

    def __init__(self, source: SourceConfig, place: str, usual: str | None) -> None:
        self.source = source
        self.place = place
        self.usual = usual
        self.roles = source.roles
        self.categories = LabelMap(source.category_map)
        self.ideal_responses = LabelMap(source.ideal_response_map)

    def candidates(self, row: Row) -> Iterator[Candidate]:
        """Yields the prompt of a row, or one for each language that the source names."""
        if isinstance(self.source.prompt, dict):
            for language, column in self.source.prompt.items():
                yield self._candidate(row, [column], language)
        else:
            yield self._candidate(row, self._columns(row.values), None)

    def _columns(self, values: Mapping[str, Any]) -> list[str]:
        """Returns the columns with the prompt; of the usual ones, the first that is not empty."""
        if self.usual is None:
            return self.source.text_columns
        others = (name for name in USUAL_COLUMNS if _given([values.get(name)]))
        return [self.usual if _given([values.get(self.usual)]) else next(others, self.usual)]

    def _candidate(self, row: Row, columns: Sequence[str], language: str | None) -> Candidate:
        source, values, place = self.source, row.values, f"{self.place}:{row.number}"
        try:
            if not values:
                raise BadRowError("unreadable_row")
            prompt = self._prompt(values, columns)
            categories = self._categories(values)
            metadata = [text for name in source.metadata for text in _texts(values, name)]
        except RecursionError:
            return Candidate(messages=[], categories=[], place=place, fault="nested_too_deeply")
        except BadRowError as fault:
            return Candidate(messages=[], categories=[], place=place, fault=str(fault))
        ideal_response = self._ideal_response(values, place)
        if source.label_as_metadata and ideal_response:
            metadata.append(f"the ideal response is {ideal_response}")
        languages = _texts(values, source.language_column)
        transforms = _texts(values, source.transform)
        return Candidate(
            messages=prompt.messages,
            categories=categories,
            ideal_response=ideal_response,
            language=language or next(iter(languages), source.language or "en"),
            transform=next(iter(transforms), None),
            metadata=metadata,
            kept={name: column_value(values, name) for name in source.kept_columns},
            place=place,
            answer_left_off=bool(prompt.left_off),
            left_off=prompt.left_off,
            columns_left_off=[
                name
                for name in BESIDE_CHAT
                if name not in source.columns and _texts(values, name) not in _NOTHING
            ],
        )

    def _prompt(self, values: Mapping[str, Any], columns: Sequence[str]) -> _Prompt:
        """Returns the prompt of a row; raises BadRowError if it has none that can be asked."""
        contents = [column_value(values, name) for name in columns]
        must_be_chat = self.source.messages or (self.usual and columns != ["prompt"])
        if self.source.turns:
            prompt = _Prompt([_user_message(text) for text in _given(contents)])
        elif must_be_chat or (len(contents) == 1 and is_chat(contents[0])):
            prompt = self._chat(contents[0])
        elif len(contents) == 1:
            prompt = _Prompt([_user_message(contents[0])])
        else:
            texts = [read_text(content) for content in _given(contents)]
            prompt = _Prompt([_user_message("\n\n".join(texts))])
        if not prompt.messages or not prompt.messages[-1]["content"].strip():
            raise BadRowError("empty_prompt")
        columns = self.source.system_columns
        systems = [_system_text(name, column_value(values, name)) for name in columns]
        if text := "\n\n".join(_given(systems)):
            prompt.messages.insert(0, {"role": "system", "content": text})
        return prompt

    def _chat(self, value: object) -> _Prompt:
        """Returns a chat up to its last user turn if it ends on the assistant."""
        turns = read_turns(value)
        roles = [read_role(turn, self.roles) for turn in turns]
        if "user" not in roles or roles[-1] not in ("user", "assistant"):
            raise BadRowError("not_on_user_turn")
        length = len(roles) - roles[::-1].index("user")
        if any(is_missing(read_content(one)) and not has_calls(one) for one in turns[: length - 1]):
            raise BadRowError("no_content")
        return _Prompt(read_messages(turns[:length], self.roles), turns[length:])

    def _categories(self, values: Mapping[str, Any]) -> list[str]:
        """Returns the categories of a row, sorted; raises BadRowError if all are left out."""
        if not self.source.category:
            return sorted(set(self.source.categories))
        mapped = set(self.categories.meanings(column_value(values, self.source.category)))
        if mapped == {""}:
            raise BadRowError("left_out")
        return sorted(mapped - {""})

    def _ideal_response(self, values: Mapping[str, Any], place: str) -> str | None:
        """Returns the ideal response to a row, or None; raises ValueError if it is unmapped."""
        source = self.source
        if not source.ideal_response:
            return source.ideal_response_value.value if source.ideal_response_value else None
        label = column_value(values, source.ideal_response)
        # Of a list, the first label that says one: others may be mapped to nothing.
        outcome = next(filter(None, self.ideal_responses.meanings(label)), "")
        if outcome and outcome not in tuple(Outcome):
            raise ValueError(
                f"source {source.name!r}: ideal response {short(outcome)} ({place}) must be one of "
                f"{', '.join(Outcome)}; map it in ideal_response_map"
            )
        return outcome or None


_NOTHING: tuple[list[str], ...] = ([], ["[]"])
"""The texts of a column that holds nothing, or a list of nothing."""


def _texts(values: Mapping[str, Any], name: str | None) -> list[str]:
    return texts_of(column_value(values, name))


def _system_text(column: str, value: object) -> str | None:
    """Returns the text of a system message; a list of tools as JSON."""
    if texts_of(value) in _NOTHING:
        return None
    if column in TOOL_COLUMNS and not isinstance(value, str):
        return value_text(value)
    return read_text(value)


def _user_message(content: object) -> Message:
    return {"role": "user", "content": read_text(content)}


def _given(contents: Sequence[Any]) -> list[Any]:
    """Returns the contents that are not empty, each item of a list of texts by itself."""
    items: list[Any] = []
    for content in contents:
        is_texts = isinstance(content, list) and all(isinstance(item, str) for item in content)
        items += content if is_texts else [content]
    return [
        item
        for item in items
        if not is_missing(item) and not (isinstance(item, str) and not item.strip())
    ]
