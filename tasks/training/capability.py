"""Capability data → chats to learn: every row of a file, or the reason that it is left out."""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from specs.characters import is_blank
from specs.replies import CLOSE_TAG, OPEN_TAG, split_text
from tasks.data.chats import (
    BadRowError,
    Turn,
    is_missing,
    read_content,
    read_messages,
    read_text,
    read_turns,
)
from tasks.data.formats import Row, read_tables
from tasks.data.sources import SourceConfig
from tasks.training.trainer import DataError

_REASONING = "reasoning_content"
_REASONING_KEYS = (_REASONING, "reasoning")
_BATCH_ROWS = 2_000
_TURN = pa.struct(
    [(name, pa.string()) for name in ("role", "content", "tool_calls", "tool_call_id", "name")]
)
_SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("messages", pa.list_(_TURN)),
        ("reasoning", pa.string()),
        ("answer", pa.string()),
    ]
)


def write_chats(path: Path, target: Path) -> dict[str, int]:
    """Writes the chats of a file as Parquet and returns the rows left out, by reason.

    Raises DataError if the file cannot be read, or if none of its rows has reasoning.
    """
    left_out: Counter[str] = Counter()
    places: dict[str, str] = {}
    has_reasoning = False
    with pq.ParquetWriter(target, _SCHEMA, compression="zstd") as file:
        chats = _chats(path, left_out, places)
        while batch := list(itertools.islice(chats, _BATCH_ROWS)):
            has_reasoning = has_reasoning or any(chat["reasoning"] for chat in batch)
            file.write_table(pa.Table.from_pylist(batch, schema=_SCHEMA))
    if not has_reasoning:
        bad = f" ({', '.join(_told(left_out, places))})" if left_out else ""
        raise DataError(
            f"{path} has no column messages whose turns have content and {_REASONING}{bad}; give "
            "sft.capability.path such a file"
        )
    return _told(left_out, places)


def _told(left_out: Mapping[str, int], places: Mapping[str, str]) -> dict[str, int]:
    """Returns the counts of rows by a reason that names the first of them."""
    return {
        f"{fault} in capability data, first at {places[fault]}": count
        for fault, count in left_out.items()
    }


def _chats(path: Path, left_out: Counter[str], places: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yields the chats that can be read; counts the other rows, and notes where the first stood."""
    source = SourceConfig(name="sft.capability", path=str(path), messages="messages")
    try:
        for table in read_tables(source):
            for row in table.rows():
                try:
                    yield _chat(row)
                except BadRowError as fault:
                    left_out[str(fault)] += 1
                    places.setdefault(str(fault), f"{path.name}:{row.number}")
    except ValueError as error:
        raise DataError(str(error)) from error


def _chat(row: Row) -> dict[str, Any]:
    if not row.values:
        raise BadRowError("unreadable_row")
    turns = read_turns(row.values.get("messages"))
    *messages, reply = read_messages(
        [*turns[:-1], {**turns[-1], "content": _text(read_content(turns[-1]))}], {}
    )
    if reply["role"] != "assistant":
        raise BadRowError("not_on_assistant_turn")
    if reply.get("tool_calls"):
        raise BadRowError("ends_on_call")
    if not any(message["role"] == "user" for message in messages):
        raise BadRowError("no_prompt")
    reasoning, answer = _parts(turns[-1], reply["content"])
    chat = {"messages": messages, "reasoning": reasoning, "answer": answer}
    return {"row_id": _row_id(row.values, chat), **chat}


def _parts(turn: Turn, content: str) -> tuple[str, str]:
    """Returns the reasoning and the answer of a turn, by keys of their own or by marks in its text.

    Raises BadRowError with the form of a reply that has no answer.
    """
    key = next((key for key in _REASONING_KEYS if not is_missing(turn.get(key))), None)
    reasoning = read_text(turn[key]) if key and turn[key] != "" else ""
    if any(mark in content for mark in (OPEN_TAG, CLOSE_TAG)):
        reply = split_text(content)
        if reasoning or not reply.has_answer:
            raise BadRowError("malformed" if reasoning else reply.status.value)
        return reply.reasoning, reply.answer
    if is_blank(content):
        raise BadRowError("empty_answer")
    return reasoning, content


def _text(content: object) -> str:
    return "" if is_missing(content) else read_text(content)


def _row_id(values: Mapping[str, Any], chat: Mapping[str, Any]) -> str:
    """Returns the hash of a chat, which orders the rows by chance and the same in every run."""
    reply = {"role": "assistant", "content": chat["answer"], _REASONING: chat["reasoning"]}
    turns = [{**turn, _REASONING: None} for turn in chat["messages"]]
    text = json.dumps([*turns, reply], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
