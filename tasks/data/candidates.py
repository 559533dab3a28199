"""Rows → candidates: every row of a source as a prompt, or with the reason that it cannot be one.

A source that cannot be used ends the run with one sentence; a row that cannot be used becomes a
candidate with a fault.
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from specs.policy import Outcome
from specs.prompts import Message
from tasks.data.sources import Row, SourceConfig, read_tables
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
    """File and number of the row."""
    fault: str | None = None
    """The reason that the row cannot be used: unreadable_row, empty_prompt, not_text, not_a_chat,
    unknown_role, not_on_user_turn, left_out."""

    @property
    def prompt_id(self) -> str:
        """Hash of the canonical messages."""
        return messages_id(self.messages)


def messages_id(messages: Sequence[Message]) -> str:
    """Returns the hash of the canonical messages: the same however a file spells a chat."""
    return content_id(
        json.dumps(messages, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    )


def short(text: object) -> str:
    """Returns a value for a message, cut to 60 characters: it may be a whole prompt."""
    line = str(text)
    return repr(line if len(line) <= 60 else line[:57] + "…")


_ROLES = ("user", "assistant", "system", "tool")
_UNSAFE = re.compile("[\ud800-\udfff\x00]")
_HEAD_ROWS = 1000
"""Rows that tell which columns a file has: JSON leaves out a key that has no value."""


class _BadRow(ValueError):
    """A row that cannot be used; its message is the fault by which it is counted."""


def read_source(source: SourceConfig) -> Iterator[Candidate]:
    """Yields the rows of a source; a row that cannot be used has a fault and no messages.

    Raises ValueError if the source cannot be read, lacks a column, has an ideal response that it
    does not map, or has no rows.
    """
    num_rows = 0
    for where, rows in read_tables(source):
        head = list(itertools.islice(rows, _HEAD_ROWS))
        if not head:
            continue
        text_column = _text_column(source, where, head)
        for number, row in enumerate(itertools.chain(head, rows), 1):
            if num_rows == source.limit:
                return
            num_rows += 1
            yield replace(_candidate(row, source, text_column), place=f"{where}:{number}")
    if num_rows == 0:
        place = source.path or source.dataset
        raise ValueError(f"source {source.name!r}: no rows in {place}; give it some or remove it")


def _text_column(source: SourceConfig, where: str, head: Sequence[Row]) -> str:
    """Returns the column with the chat or the prompt; raises ValueError if a column is missing."""
    columns = list(dict.fromkeys(itertools.chain(*head)))
    listed = f"its columns are {', '.join(map(str, columns)) or 'none'}"
    missing = next((name for name in source.columns if name not in columns), None)
    if missing:
        raise ValueError(
            f"source {source.name!r}: {where} has no column {missing!r}; {listed}: name one of them"
        )
    named = source.messages or source.prompt
    usual = next((name for name in ("messages", "prompt") if name in columns), None)
    column = named or usual
    if not column:
        raise ValueError(
            f"source {source.name!r}: {where} has neither a column 'messages' nor 'prompt'; "
            f"{listed}: say which in prompt or messages"
        )
    return column


def _candidate(row: Row, source: SourceConfig, text_column: str) -> Candidate:
    is_chat = source.messages is not None or (source.prompt is None and text_column == "messages")
    try:
        if not row:
            raise _BadRow("unreadable_row")
        value = row.get(text_column)
        messages = _chat(value) if is_chat else [_message("user", value)]
        if messages[-1]["role"] != "user":
            raise _BadRow("not_on_user_turn")
        if not messages[-1]["content"].strip():
            raise _BadRow("empty_prompt")
        categories = _categories(row, source)
    except _BadRow as fault:
        return Candidate(messages=[], categories=[], fault=str(fault))
    ideal_response = _ideal_response(row, source)
    metadata = [text for column in source.metadata for text in _texts(row.get(column))]
    if source.label_as_metadata and ideal_response:
        metadata.append(f"the ideal response is {ideal_response}")
    language = _texts(row.get(source.language_column)) if source.language_column else []
    transform = _texts(row.get(source.transform)) if source.transform else []
    return Candidate(
        messages=messages,
        categories=categories,
        ideal_response=ideal_response,
        language=language[0] if language else source.language,
        transform=transform[0] if transform else None,
        metadata=metadata,
        kept={name: row.get(name) for name in source.keep},
    )


def read_chat(value: object) -> list[Message] | None:
    """Returns the chat in a kept column: a list of messages, or a user's text; None for others."""
    try:
        return [_message("user", value)] if isinstance(value, str) else _chat(value)
    except _BadRow:
        return None


def _chat(value: object) -> list[Message]:
    """Returns the chat of a row: a list of role and content, or the same as JSON text."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise _BadRow("not_a_chat") from None
    if not value:
        raise _BadRow("empty_prompt")
    if not isinstance(value, list):
        raise _BadRow("not_a_chat")
    messages = []
    for turn in value:
        if not isinstance(turn, Mapping):
            raise _BadRow("not_a_chat")
        messages.append(_message(turn.get("role"), turn.get("content")))
    return messages


def _message(role: object, content: object) -> Message:
    if role not in _ROLES:
        raise _BadRow("unknown_role")
    if content is None:
        raise _BadRow("empty_prompt")
    if not isinstance(content, str):
        raise _BadRow("not_text")
    return {"role": str(role), "content": _clean(content)}


def _clean(text: str) -> str:
    """Returns text that every file and tokenizer takes: lone surrogates and NUL become U+FFFD."""
    return _UNSAFE.sub("\ufffd", text).replace("\r\n", "\n")


def _texts(value: object) -> list[str]:
    """Returns the values of a column as text: none, one, or those of a list."""
    values = value if isinstance(value, list) else [value]
    texts = (_clean(str(item)).strip() for item in values if item is not None)
    return [text for text in texts if text]


def _categories(row: Row, source: SourceConfig) -> list[str]:
    """Returns the categories of a row, sorted; raises _BadRow if the source leaves all out."""
    if not source.category:
        return sorted(set(source.categories))
    labels = _texts(row.get(source.category))
    mapped = {source.category_map.get(label, label) for label in labels}
    if mapped == {""}:
        raise _BadRow("left_out")
    return sorted(mapped - {""})


def _ideal_response(row: Row, source: SourceConfig) -> str | None:
    """Returns the ideal response to a row, or None; raises ValueError if its label is unmapped."""
    if not source.ideal_response:
        return source.ideal_response_value.value if source.ideal_response_value else None
    labels = _texts(row.get(source.ideal_response))
    if not labels:
        return None
    outcome = source.ideal_response_map.get(labels[0], labels[0])
    if outcome and outcome not in tuple(Outcome):
        raise ValueError(
            f"source {source.name!r}: ideal response {short(labels[0])} must be one of "
            f"{', '.join(Outcome)}; map it in ideal_response_map"
        )
    return outcome or None
